"""Temporal: the experts that the previous token of the same request used in the layer ``lookahead`` on.

Consecutive tokens share experts more often than chance (Mixtral's report, Jiang et al., arXiv 2401.04088, section 5).
The previous token is the last one that ran in an earlier step, so that of a prompt's chunk it is the chunk before.
Proposals end at the step's last layer. With a cache that keeps at least one token's experts it has little to add.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams, proposals


class Params(PolicyParams):
    """How far ahead, and how many."""

    lookahead: int = Field(1, ge=1, le=8, description="layers ahead")
    budget: int | None = Field(None, ge=1, description="at most so many experts a visit; default: all")


def candidates(params, visits, trace, rng):
    """The previous tokens' experts, those wanted by most requests first."""
    steps, d, layers = visits.steps, params.lookahead, visits.num_layers
    step = np.repeat(np.arange(steps.num_steps), steps.tokens)
    request = visits.request_of_row[steps.row]
    order = np.lexsort((step, request))
    before, now = order[:-1], order[1:]
    follows = (request[before] == request[now]) & (step[before] < step[now])
    before, now = before[follows], now[follows]
    used = np.asarray(trace.experts)[steps.row[before], d:]  # [tokens, layers - d, top_k]
    token, layer, rank = np.nonzero(used != trace.sentinel)
    visit = step[now][token] * layers + layer
    key = (layer + d) * visits.num_experts + used[token, layer, rank]
    in_order = np.argsort(visit, kind="stable")
    return proposals(visits, visit[in_order], key[in_order], visit[in_order] + d, params.budget)
