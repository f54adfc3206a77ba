"""Proportional: a layer's share is in proportion to how many experts it effectively uses.

weight_l = exp(-sum_e p_e ln p_e), with p_e the share of expert e in the layer's activations of the training split: E
where all are used alike, 1 where one is used alone. A plain rule to hold the others against; no paper's.
"""

import numpy as np

from moesim.policies.api import PolicyParams
from moesim.policies.split import SplitFacts, in_proportion

needs_training = True


class Params(PolicyParams):
    """Nothing to choose."""


def slots(params: Params, facts: SplitFacts):
    """By effective number of experts."""
    share = facts.uses / np.maximum(facts.uses.sum(axis=1, keepdims=True), 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    return in_proportion(np.exp(entropy), facts)
