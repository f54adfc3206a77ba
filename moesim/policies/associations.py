"""What a layer's routing has been followed by: tables that prefetch policies learn.

A *context* is what a token shows at a layer (an expert that it uses, a pair of choices), numbered layer by layer. The
table counts which experts such tokens used in the next layer. It learns from the training split that the scenario
names, whose steps come first. Without one it learns as the trace goes: at each step it is asked before it learns, so
that what it says of a step comes from earlier steps only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.policies.api import Candidates
from moesim.traces.trace import RoutingTrace
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]


def learns(visits: Visits, step: int) -> bool:
    """Whether a step is learned from: those of the training split where there is one, else all (after they ran)."""
    return visits.steps.training == 0 or step < visits.steps.training


def routed(visits: Visits, trace: RoutingTrace) -> Ints:
    """The experts of each token in the order in which tokens run, -1 for none. [tokens, layers, top_k]"""
    experts = np.asarray(trace.experts)[visits.steps.row].astype(np.int64)
    return np.where(experts == trace.sentinel, -1, experts)


def follow_ups(visits: Visits, experts: Ints, context: Ints, budget: int | None) -> Candidates:
    """At every visit, what most probably follows in the next layer, by the counts of all earlier steps.

    score(e) = sum over the visit's tokens and their contexts c of (tokens with c that then used e) / (tokens with c)

    Args:
        experts: as :func:`routed`. [tokens, layers, top_k]
        context: ids that ascend with the layer, -1 for none; several of a token must differ. [tokens, layers, contexts]
        budget: at most so many experts a visit; None: as many as the visit asked for itself.
    """
    context, layer_of_context = _worth_counting(context[:, :-1])
    following = experts[:, 1:]
    seen = np.zeros((len(layer_of_context), visits.num_experts), dtype=np.float32)
    tokens = np.zeros(len(layer_of_context), dtype=np.float32)
    chosen = Chosen(visits, budget)
    for step in range(visits.steps.num_steps):
        start, stop = visits.steps.row_start[step], visits.steps.row_start[step + 1]
        here = context[start:stop]
        ids, times = np.unique(here[here >= 0], return_counts=True)
        known = tokens[ids] > 0
        asked, weight = ids[known], times[known] / tokens[ids[known]]
        if len(asked):
            layer, first = np.unique(layer_of_context[asked], return_index=True)
            chosen.add(step, layer, 1, np.add.reduceat(seen[asked] * weight[:, None], first, axis=0))
        if not learns(visits, step):
            continue
        token, layer, place, rank = np.nonzero((here >= 0)[..., None] & (following[start:stop] >= 0)[:, :, None, :])
        np.add.at(seen, (here[token, layer, place], following[start:stop][token, layer, rank]), 1)
        tokens[ids] += times
    return chosen.candidates()


def _worth_counting(context: Ints) -> tuple[Ints, Ints]:
    """Contexts numbered anew without those that come once (they never answer), and the layer of each number."""
    ids, number, times = np.unique(context, return_inverse=True, return_counts=True)
    counted = (ids >= 0) & (times > 1)
    renumbered = np.where(counted, np.cumsum(counted) - 1, -1)[number.reshape(context.shape)]
    layer_of_context = np.zeros(int(counted.sum()), dtype=np.int64)
    _, layer, _ = np.nonzero(renumbered >= 0)
    layer_of_context[renumbered[renumbered >= 0]] = layer
    return renumbered, layer_of_context


class Chosen:
    """Collects the best-scored experts of visits, step by step."""

    def __init__(self, visits: Visits, budget: int | None):
        self._visits, self._budget = visits, budget
        self._lookups = np.diff(visits.lookup_start)
        self._visit: list[Ints] = []
        self._key: list[Ints] = []
        self._target: list[Ints] = []

    def add(self, step: int, layer: Ints, ahead: int, scores: NDArray[Any]) -> None:
        """Propose what scored best at some layers of a step.

        Args:
            layer: ascending. [visits]
            ahead: how many layers follow each that were scored.
            scores: 0 for what should not be proposed. [visits, ahead * experts]
        """
        visits = self._visits
        visit = step * visits.num_layers + layer
        most = self._lookups[visit] * ahead if self._budget is None else np.full(len(visit), self._budget)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : most.max()]
        wanted = (np.take_along_axis(scores, best, axis=1) > 0) & (np.arange(best.shape[1]) < most[:, None])
        row, _ = np.nonzero(wanted)
        distance, expert = np.divmod(best[wanted], visits.num_experts)
        self._visit.append(visit[row])
        self._key.append((layer[row] + 1 + distance) * visits.num_experts + expert)
        self._target.append(visit[row] + 1 + distance)

    def candidates(self) -> Candidates:
        """All that was proposed."""
        none = np.zeros(0, dtype=np.int64)
        visit, key, target = (np.concatenate([none, *columns]) for columns in (self._visit, self._key, self._target))
        return Candidates(np.searchsorted(visit, np.arange(self._visits.num_visits + 1)), key, target)
