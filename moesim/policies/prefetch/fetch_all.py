"""Fetch all: every expert of the layer ``lookahead`` on is fetched, wanted or not.

The prefetching baseline of Pre-gated MoE (Hwang et al., arXiv 2308.12066), after SE-MoE's ring of layers in GPU memory
(Shen et al., arXiv 2205.10034). Proposals end at the step's last layer.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import Candidates, PolicyParams


class Params(PolicyParams):
    """How far ahead."""

    lookahead: int = Field(1, ge=1, le=8, description="layers ahead")


def candidates(params, visits, trace, rng):
    """All experts of a layer, in the order of their numbers."""
    visit = np.arange(visits.num_visits)
    inside = visit % visits.num_layers + params.lookahead < visits.num_layers
    start = np.concatenate([[0], np.cumsum(inside) * visits.num_experts])
    target = visit[inside] + params.lookahead
    first = target % visits.num_layers * visits.num_experts
    key = (first[:, None] + np.arange(visits.num_experts)).reshape(-1)
    return Candidates(start, key, np.repeat(target, visits.num_experts))
