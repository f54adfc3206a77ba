"""What numba compiles, one file for each question; every file is ordinary Python in the compiled subset.

Start with ``policy`` (where the caching policy comes in) and ``sequential`` (the shortest kernel). ``cache`` keeps a
cache's books, ``visits`` counts under the other two capacity rules, ``timeline`` adds a clock, with ``link``, and
``distances`` gives LRU's hits at all sizes at once. :mod:`moesim.replay.compile` puts them together.
"""
