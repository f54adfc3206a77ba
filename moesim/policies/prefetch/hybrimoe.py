"""HybriMoE: of the experts predicted for the next layers, prefetch those whose presence would end a layer soonest.

The running layer's router input goes through the routers of the next ``depth`` layers (recorded lookahead channels, or
modelled: ``accuracy``). A candidate's impact is how much shorter its layer's CPU-GPU schedule (``list_schedule``, with
what is there now) would be if it were resident; the one with the largest goes first, impacts of its layer are
computed anew, until none is left (``impact``).

Source: Zhong et al., "HybriMoE", arXiv 2504.05897, which looks three layers ahead. Its released code does otherwise
(``scores``): the next layer's experts with the highest moving average of gate weights, as in the caching policy
``mrs``. Made for ``on_miss: hybrimoe``.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.policies.api import ABSENT, Candidates, Offered, PolicyParams
from moesim.policies.associations import Chosen, routed
from moesim.policies.gates import Accuracy, guesses
from moesim.policies.list_schedule import best_moved, makespan


class Params(PolicyParams):
    """Which rule, how far ahead, how many, and how good modelled gates are."""

    rule: Literal["impact", "scores"] = Field("impact", description="the paper's, or the released code's")
    budget: int | None = Field(
        None, ge=1, description="at most so many experts a visit; default: all with an impact, or as many as it uses"
    )
    alpha: float = Field(0.5, gt=0, le=1, description="weight of the newest score, for `scores`")
    depth: int = Field(3, ge=1, le=8, description="layers ahead that are looked at")
    accuracy: Accuracy = Field(None, description="probability that a true expert is proposed; one number, or by layer")

    @property
    def models_future(self) -> bool:
        """Whether the proposals are made from the truth instead of recorded channels."""
        return self.accuracy is not None and self.rule == "impact"


def candidates(params, visits, trace, rng):
    """The highest scores; or all that is predicted, since residents are needed for the schedule."""
    if params.rule == "scores":
        return _highest_scores(params, visits, trace)
    columns = []
    for ahead in range(1, min(params.depth, visits.num_layers - 1) + 1):
        guess = guesses(visits, trace, ahead, params.accuracy, rng)
        columns.append(np.stack([guess.visit, guess.visit + ahead, guess.key]))
    merged, votes = np.unique(np.concatenate(columns, axis=1), axis=1, return_counts=True)
    visit, target, key = merged
    order = np.lexsort((key, -votes, target, visit))
    visit, target, key, votes = visit[order], target[order], key[order], votes[order]
    return Candidates(np.searchsorted(visit, np.arange(visits.num_visits + 1)), key, target, votes)


def _highest_scores(params, visits, trace):
    """Of the next layer, whose scores are those of earlier steps."""
    used, layers = routed(visits, trace), visits.num_layers
    chosen, scores = Chosen(visits, params.budget), np.zeros((layers, visits.num_experts))
    for step in range(visits.steps.num_steps):
        if layers > 1:
            chosen.add(step, np.arange(layers - 1), 1, scores[1:])
        rows = slice(visits.steps.row_start[step], visits.steps.row_start[step + 1])
        token, layer, rank = np.nonzero(used[rows] >= 0)
        weight = np.full(len(token), 1 / trace.top_k)
        if trace.weights is not None:
            weight = np.asarray(trace.weights)[visits.steps.row[rows]][token, layer, rank].astype(np.float64)
        scores *= 1 - params.alpha
        np.add.at(scores, (layer, used[rows][token, layer, rank]), params.alpha * weight)
    return chosen.candidates()


def choose(params: Params, offered: Offered):
    """Greedily by impact; scores are in order as they are."""
    if params.rule == "scores":
        return
    offered.rank[:] = [-1] * len(offered.rank)
    resident = [there != ABSENT for there in offered.there]
    impact = {}
    for ahead in dict.fromkeys(offered.ahead):
        impact.update(_impacts(offered, ahead, resident))
    for rank in range(len(offered.rank)):
        place = max(impact, key=lambda place: (impact[place], -place), default=-1)
        if place < 0 or impact[place] <= 0.0 or rank == params.budget:
            return
        offered.rank[place], resident[place] = rank, True
        del impact[place]
        impact = {other: value for other, value in impact.items() if offered.ahead[other] != offered.ahead[place]}
        impact.update(_impacts(offered, offered.ahead[place], resident))


def _impacts(offered, ahead, resident):
    """By how much each absent candidate of a layer would shorten its schedule. {place: seconds}"""
    places = [place for place, distance in enumerate(offered.ahead) if distance == ahead]
    missing = sorted((p for p in places if not resident[p]), key=lambda place: (-offered.tokens[place], place))
    there_s = sum(offered.gpu_s[place] for place in places if resident[place])
    now = _shortest(offered, missing, there_s)
    return {
        place: now - _shortest(offered, [p for p in missing if p != place], there_s + offered.gpu_s[place])
        for place in missing
    }


def _shortest(offered, missing, there_s):
    columns = offered.fetch_s, offered.cpu_s, offered.gpu_s
    moved = best_moved(missing, len(missing), *columns, there_s)
    return makespan(missing, moved, len(missing), *columns, there_s)
