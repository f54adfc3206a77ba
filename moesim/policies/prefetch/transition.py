"""Transition: the experts that most often followed, one layer on, the experts that are used now.

score(e') = sum over the visit's (token, expert e) of P(e' | e), the share of earlier tokens with e in this layer that
used e' in the next one: a first-order Markov chain over layers, the statistic behind inter-layer expert affinity
(Yao et al., ExFlow, arXiv 2401.08383). Learned from the training split where there is one, else as
the trace goes: a step is then scored by the steps before it.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams
from moesim.policies.associations import follow_ups, routed


class Params(PolicyParams):
    """How many."""

    budget: int | None = Field(None, ge=1, description="at most so many experts a visit; default: as many as it uses")


def candidates(params, visits, trace, rng):
    """One context for each expert that a token uses."""
    experts = routed(visits, trace)
    layer = np.arange(visits.num_layers)[:, None]
    context = np.where(experts < 0, -1, layer * visits.num_experts + experts)
    return follow_ups(visits, experts, context, params.budget)
