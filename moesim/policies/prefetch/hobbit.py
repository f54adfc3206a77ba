"""HOBBIT: look ahead layer by layer up to ``depth``, and prefetch for the first one of which something is missing.

The running layer's router input goes through the routers of the next layers (the recorded lookahead channels, or
modelled: ``accuracy``). If all experts predicted for layer l + 1 are there or on their way, l + 2 is looked at, and so
on. A predicted expert comes in the precision that its unimportance asks for: the sum of the gate weights ranked before
it, s > T1 for low. Predicted weights are not recorded, so each rank's mean weight over all earlier steps stands for
them, layer by layer (with ``low: false`` everything comes in full).

Predicted experts that are there are kept from leaving until the next layer's turn (``protect``), unless what is asked
for finds no other room.

Source: Tang et al., "HOBBIT", arXiv 2411.01433 (p = 1..3).
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import ABSENT, Candidates, Offered, PolicyParams
from moesim.policies.associations import routed
from moesim.policies.gates import Accuracy, guesses


class Params(PolicyParams):
    """How far ahead, in which precision, and how good modelled gates are."""

    depth: int = Field(3, ge=1, le=8, description="layers ahead that may be looked at")
    protect: bool = Field(True, description="keep predicted experts that are there from leaving")
    budget: int | None = Field(None, ge=1, description="at most so many absent experts a visit; default: all")
    low: bool = Field(True, description="bring later choices in low precision; needs on_miss: hobbit")
    t1: float = Field(0.6, ge=0, le=1, description="unimportance above which low precision will do")
    accuracy: Accuracy = Field(None, description="probability that a true expert is proposed; one number, or by layer")

    @property
    def models_future(self) -> bool:
        """Whether the proposals are made from the truth instead of recorded channels."""
        return self.accuracy is not None


def candidates(params, visits, trace, rng):
    """Nearest layer first; within a layer the most important first."""
    low_ranks = _low_ranks(visits, trace, params.t1)
    columns = []
    for ahead in range(1, min(params.depth, visits.num_layers - 1) + 1):
        guess = guesses(visits, trace, ahead, params.accuracy, rng)
        target_layer = guess.visit % visits.num_layers + ahead
        low = low_ranks[guess.visit // visits.num_layers, target_layer, guess.rank]
        columns.append(np.stack([guess.visit, guess.key, guess.visit + ahead, guess.rank, low]))
    visit, key, target, rank, low = np.concatenate(columns, axis=1)
    order = np.lexsort((rank, target, visit))
    visit, key, target, low = (column[order] for column in (visit, key, target, low))
    # Of several tokens that want the same expert for the same visit the most important counts.
    _, first, votes = np.unique(np.stack([visit, target, key]), axis=1, return_index=True, return_counts=True)
    place = np.argsort(first)
    first, votes = first[place], votes[place]
    start = np.searchsorted(visit[first], np.arange(visits.num_visits + 1))
    in_low = low[first].astype(bool) if params.low else None
    return Candidates(start, key[first], target[first], votes, in_low)


def choose(params: Params, offered: Offered):
    """Only the nearest layer that lacks something, and of what it lacks the first few."""
    lacking = [ahead for ahead, there in zip(offered.ahead, offered.there, strict=True) if there == ABSENT]
    nearest = min(lacking, default=max(offered.ahead, default=0))
    sent = 0
    for place, ahead in enumerate(offered.ahead):
        sent += offered.there[place] == ABSENT
        if ahead > nearest or (params.budget is not None and sent > params.budget):
            offered.rank[place] = -1


def _low_ranks(visits, trace, t1):
    """Whether each rank will do in low precision, by the weights of earlier steps. [steps, layers, top_k]"""
    steps, layers, top_k = visits.steps, visits.num_layers, trace.top_k
    if trace.weights is None:
        share = np.full((len(steps.row), layers, top_k), 1 / top_k)
    else:
        weight = np.where(routed(visits, trace) >= 0, np.asarray(trace.weights)[steps.row], 0).astype(np.float64)
        share = -np.sort(-weight, axis=2) / np.maximum(weight.sum(axis=2, keepdims=True), 1e-12)
    before = np.cumsum(share, axis=2) - share
    total = np.concatenate([np.zeros((1, layers, top_k)), np.cumsum(before, axis=0)])[steps.row_start[:-1]]
    return total > t1 * np.maximum(steps.row_start[:-1], 1)[:, None, None]
