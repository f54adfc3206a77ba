"""Optima of prefetching and caching over a link.

Read ``problem`` first (what is timed, and how a setup becomes it), then ``prefix`` (a bound in one pass) and
``phases`` (one over several links), ``plan`` (a plan of transfers), ``bracket`` (the least time from both sides) with
``slots`` and ``fluid`` (bounds by linear programs), and ``schedules`` (plans that the engine replays).
"""
