"""The figures of reports, as SVG elements.

Read ``canvas`` first (how a plotting function becomes an element of a page), then ``palette`` (what colour means). The
others hold plotting functions by subject: ``bottleneck``, ``time``, ``layers`` of a run, ``comparison`` of policies,
``routing`` of traces; ``lines`` gives each policy or trace its look.
"""
