"""The microbenchmark suite: a machine measured, a card fitted from it, and the simulator held against what was not.

Where to read first:

1. ``suite`` - which benchmarks there are, which cases each measures, and which of them a fit may see: fixed in code.
2. ``src/`` - the programs that measure: ``host/`` (C++, needs no GPU) and ``cuda/``; ``shared/`` is common to both.
3. ``build`` compiles them, ``process`` runs one, ``runner`` all: one result (``schema``), with its ``environment``.
4. ``forms`` and ``fit`` turn a result into a machine's card (:mod:`moesim.hardware.machine`), ``validation`` holds the
   card against the rows that were held out, ``decode_loop`` the simulator against the ``replay`` benchmark.

``measured/`` holds raw results, written by ``moesim microbench run`` and never edited; its manifest lists their hashes.
"""
