"""Demand: a layer's share is in proportion to how many distinct experts a step is expected to use there.

ExpertFlow (Shen et al., arXiv 2410.17954) predicts that demand for each batch and gives slots accordingly; here it is
the mean over the training split's decode steps, at the scenario's batch. With one request a step every layer uses
top-k experts, and the split is equal. ExpertFlow also hands on the slots of layers that a pass has left behind: that
is a global cache under ``least-stale``.
"""

from moesim.policies.api import PolicyParams
from moesim.policies.split import SplitFacts, in_proportion

needs_training = True


class Params(PolicyParams):
    """Nothing to choose."""


def slots(params: Params, facts: SplitFacts):
    """By mean demand."""
    return in_proportion(facts.demand, facts)
