"""What numba compiles, one file for each question; every file is ordinary Python in the compiled subset.

Start with ``policy`` (where the caching policy comes in) and ``sequential`` (the shortest kernel). ``caches`` keeps the
books, ``visits`` counts under the other two capacity rules, ``timeline`` adds a clock, with ``node`` and ``link``;
``distances`` gives LRU's hits at all sizes at once, ``blocks`` serves streams. :mod:`moesim.replay.compile` puts them
together.
"""
