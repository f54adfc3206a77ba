"""The replay: a caching policy on a trace, without the SimPy engine.

Read ``expert_cache`` first (the accounting around a caching policy, which the SimPy engine uses as well), then
``counts``, which drives it visit by visit under each of the three capacity rules: that is the meaning. The rest is
speed: ``kernels`` says the same in flat arrays, ``source`` and ``compile`` put a policy and the kernels into one
module that numba compiles and caches, ``packed`` lays out the arrays.

Five ways in: ``compiled_counts`` (called by ``counts`` for long traces), ``timed`` (a whole Setup, with times),
``lru_curve`` (LRU at all sizes), ``stream`` (traces that memory can't hold), ``tape`` (what was decided once, timed
for other hardware).
"""

from moesim.replay.counts import Counts, count
from moesim.replay.expert_cache import ExpertCache

__all__ = ["Counts", "ExpertCache", "count"]
