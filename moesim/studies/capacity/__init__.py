"""What to buy or rent for a load: ``moesim plan`` and ``moesim fits``.

Read ``plan`` first (what a plan may say), then ``survey`` (does a candidate fit, and which bounds hold for it),
``search`` (cheapest first, until no cheaper one is left), ``sensitivity`` and ``answer`` (the saved result).
"""
