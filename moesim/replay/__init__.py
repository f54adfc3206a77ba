"""Counts without a clock: what a caching policy hits, misses and fetches on a trace.

Read ``expert_cache`` first (the accounting around a caching policy, which the SimPy engine uses as well), then
``counts``, which drives it visit by visit under each of the three capacity rules.
"""

from moesim.replay.counts import Counts, count
from moesim.replay.expert_cache import ExpertCache

__all__ = ["Counts", "ExpertCache", "count"]
