"""Optimal: the split under which LRU caches of the layers would have hit most often in the training split.

Each layer's hits at every size come from one pass over its training accesses (stack distances, Mattson et al. 1970);
dynamic programming over layers finds the best sum exactly, whether or not the curves are concave. It is the best for
LRU, without prefetching, on what was learned from.
"""

from moesim.policies.api import PolicyParams
from moesim.policies.split import SplitFacts, least_cost

needs_training = True


class Params(PolicyParams):
    """Nothing to choose."""


def slots(params: Params, facts: SplitFacts):
    """Most hits."""
    return least_cost(-facts.hits, min(facts.slots, facts.num_layers * facts.num_experts))
