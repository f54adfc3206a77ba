"""Equal: every layer has the same share of the cache, in bytes.

What engines with a cache for each layer do, as Mixtral offloading (Eliseev & Mazur, arXiv 2312.17238).
"""

import numpy as np

from moesim.policies.api import PolicyParams
from moesim.policies.split import SplitFacts


class Params(PolicyParams):
    """Nothing to choose."""


def slots(params: Params, facts: SplitFacts):
    """The same for all, rounded down."""
    return np.full(facts.num_layers, facts.slots // facts.num_layers)
