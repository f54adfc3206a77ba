"""How many nodes (or ranks) a token's experts lie on: as few as possible, since each gets the token once.

In hypergraph form, over the different sets of experts that tokens use in a layer, n_t tokens each::

    min  sum_t n_t sum_b v_tb    s.t.  sum_b x_eb = 1,  sum_e x_eb = E/B,  v_tb >= x_eb for e in t

From above: experts that are used together are swapped onto the same node, then swaps by the true count. From below: a
token needs as many nodes as its experts fill, and the integer program. On two levels (nodes, then the ranks in each)
the nodes are placed first, since what crosses nodes costs most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.program import Program
from moesim.policies.packing import improved

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: The integer program is tried up to so many v's.
MAX_REACHES = 20_000


@dataclass(frozen=True)
class Reach:
    """Visits of tokens to nodes in one layer, and the node of each expert. [experts]"""

    answer: Answer
    node: Ints


@dataclass(frozen=True)
class Tokens:
    """The different sets of experts of one layer. ``uses``: [sets, experts]; ``count``: tokens of each. [sets]"""

    uses: NDArray[np.bool_]
    count: Floats


def tokens_of(sample: Ints, num_experts: int) -> Tokens:
    """From experts of tokens, -1 where there is none. ``sample``: [tokens, top_k]"""
    uses = np.zeros((len(sample), num_experts), dtype=np.bool_)
    token, place = np.nonzero(sample >= 0)
    uses[token, sample[token, place]] = True
    sets, count = np.unique(uses, axis=0, return_counts=True)
    return Tokens(sets, count.astype(np.float64))


def reached(tokens: Tokens, node: Ints, nodes: int) -> float:
    """Distinct nodes of a token, summed over tokens."""
    on = tokens.uses.astype(np.float64) @ np.eye(nodes)[node]
    return float(tokens.count @ (on > 0).sum(axis=1))


def reach_bound(tokens: Tokens, experts_per_node: int) -> float:
    """Every token needs as many nodes as its experts fill."""
    return float(tokens.count @ np.ceil(tokens.uses.sum(axis=1) / experts_per_node))


def least_reach(tokens: Tokens, nodes: int, start: Ints | None = None, *, time_limit_s: float | None = None) -> Reach:
    """The best placement of one layer that was found, equally many experts on each node.

    Args:
        start: the node of each expert to begin with; default: contiguous. [experts]
    """
    clock, experts = Stopwatch(time_limit_s), tokens.uses.shape[1]
    node = np.arange(experts) // (experts // nodes) if start is None else np.asarray(start)
    together = (tokens.uses * tokens.count[:, None]).T @ tokens.uses.astype(np.float64)
    np.fill_diagonal(together, 0.0)
    node = min(node, improved(together, node), key=lambda found: reached(tokens, found, nodes))
    node = _swapped(tokens, node, nodes, clock)
    value, bound, solver = reached(tokens, node, nodes), reach_bound(tokens, experts // nodes), "swaps"
    found = answer("nodes reached", "token visits", value=value, bound=bound, solver=solver)
    if found.status != "optimal" and len(tokens.count) * nodes <= MAX_REACHES and clock.left_s != 0:
        solved, chosen = _program(tokens, nodes, clock.left_s)
        bound = max(bound, solved or 0.0)
        if chosen is not None and reached(tokens, chosen, nodes) <= value:
            node, value, solver = chosen, reached(tokens, chosen, nodes), "HiGHS"
        found = answer("nodes reached", "token visits", value=value, bound=bound, solver=solver)
    return Reach(clock.stamp(found), node)


def two_levels(
    tokens: Tokens, nodes: int, ranks_per_node: int, *, time_limit_s: float | None = None
) -> tuple[Reach, Ints]:
    """Nodes first, then each node's ranks; the answer for nodes, and the rank of each expert. [experts]"""
    clock = Stopwatch(time_limit_s)
    by_node = least_reach(tokens, nodes, time_limit_s=clock.left_s)
    rank = np.zeros(tokens.uses.shape[1], dtype=np.int64)
    for number in range(nodes):
        experts = np.flatnonzero(by_node.node == number)
        sets, of_set = np.unique(tokens.uses[:, experts], axis=0, return_inverse=True)
        count = np.bincount(of_set, weights=tokens.count, minlength=len(sets)).astype(np.float64)
        inside = least_reach(Tokens(sets, count), ranks_per_node, time_limit_s=clock.left_s)
        rank[experts] = number * ranks_per_node + inside.node
    return by_node, rank


def _swapped(tokens: Tokens, node: Ints, nodes: int, clock: Stopwatch) -> Ints:
    """Swap two experts of different nodes, the best pair each time, while that lowers the count and time is left."""
    node, uses = node.copy(), tokens.uses.astype(np.float64)
    while clock.left_s is None or clock.left_s > 0:
        on = uses @ np.eye(nodes)[node]
        pairs = [
            (first, second) for first in range(len(node)) for second in np.flatnonzero(node > node[first]).tolist()
        ]
        changes = [_change(tokens, on, first, second, int(node[first]), int(node[second])) for first, second in pairs]
        if not changes or min(changes) > -1e-9:
            break
        first, second = pairs[int(np.argmin(changes))]
        node[first], node[second] = node[second], node[first]
    return node


def _change(tokens: Tokens, on: Floats, first: int, second: int, a: int, b: int) -> float:
    """Change of the count when experts ``first`` (on node a) and ``second`` (on node b) are swapped."""
    moved = tokens.uses[:, first].astype(np.float64) - tokens.uses[:, second]
    before = (on[:, a] > 0).astype(np.float64) + (on[:, b] > 0)
    after = (on[:, a] - moved > 0).astype(np.float64) + (on[:, b] + moved > 0)
    return float(tokens.count @ (after - before))


def _program(tokens: Tokens, nodes: int, time_limit_s: float | None) -> tuple[float | None, Ints | None]:
    experts, program = tokens.uses.shape[1], Program("nodes reached", "token visits")
    place = np.array(program.variables(np.zeros(experts * nodes), high=1.0, integer=True)).reshape(experts, nodes)
    for expert in range(experts):
        program.sum_row(place[expert].tolist(), "==", 1.0)
    for number in range(nodes):
        program.sum_row(place[:, number].tolist(), "==", experts // nodes)
    program.sum_row([int(place[0, 0])], "==", 1.0)  # nodes are alike
    for uses, count in zip(tokens.uses, tokens.count.tolist(), strict=True):
        visits = program.variables([count] * nodes, high=1.0)
        members = np.flatnonzero(uses).tolist()
        for number, variable in enumerate(visits):
            for expert in members:
                program.row([(variable, 1.0), (int(place[expert, number]), -1.0)], ">=", 0.0)
        program.sum_row(visits, ">=", float(np.ceil(len(members) / (experts // nodes))))
    solved = program.solve(time_limit_s=time_limit_s)
    chosen = None if solved.values is None else np.argmax(solved.values[place], axis=1).astype(np.int64)
    return solved.answer.bound, chosen
