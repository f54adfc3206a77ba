"""One layer's experts over CPU, GPU and the link between them: the least time until all are done.

An expert runs on the CPU (c seconds), or on the GPU (g seconds, after m seconds on the link; m = 0 where it is there).
Each of the three does one thing at a time. With y = 1 for the GPU, the GPU's side is a flow shop of two machines, whose
best order (Johnson 1954) does not depend on who takes part; in that order::

    min z    s.t.  z >= sum c (1 - y),   z >= sum_(i<=j) m y + sum_(i>=j) g y  for each j

Exact by counting where all experts are alike but for the CPU and for being there, by trying all subsets of few experts,
and else by the integer program. Source of the rules: Fiddler (arXiv 2402.07033), HybriMoE (arXiv 2504.05897).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.program import Program
from moesim.policies import api
from moesim.policies.api import ABSENT, CPU, FETCH, HERE, Asked

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: All subsets of so many experts are tried.
MOST_TRIED = 12


@dataclass(frozen=True)
class Layer:
    """What a visit has to compute.

    Attributes:
        cpu_s, gpu_s: of each expert. [experts]
        move_s: of each expert's transfer; 0 where it is on the GPU. [experts]
        tokens: of each expert. [experts]
        gpu_first_s: what the GPU does before any expert (shared experts).
    """

    cpu_s: Floats
    gpu_s: Floats
    move_s: Floats
    tokens: NDArray[np.int64]
    gpu_first_s: float = 0.0

    @property
    def johnson(self) -> NDArray[np.int64]:
        """The GPU's best order: short transfers first, then long computations first. [experts]"""
        first = self.move_s < self.gpu_s
        return np.lexsort((np.where(first, self.move_s, -self.gpu_s), ~first))

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for layers whose least times are equal."""
        rows = sorted(zip(self.cpu_s.tolist(), self.gpu_s.tolist(), self.move_s.tolist(), strict=True))
        return self.gpu_first_s, *rows


@dataclass(frozen=True)
class Division:
    """The time until all is done, and who runs on the CPU. [experts]"""

    answer: Answer
    on_cpu: Bools


def makespan_s(layer: Layer, on_cpu: Bools, order: NDArray[np.int64] | None = None) -> float:
    """Seconds until all is done; the GPU's experts in ``order`` (default: the best one). [experts]"""
    link_s, gpu_s = 0.0, layer.gpu_first_s
    for expert in (layer.johnson if order is None else order).tolist():
        if not on_cpu[expert]:
            link_s += layer.move_s[expert]
            gpu_s = max(gpu_s, link_s) + layer.gpu_s[expert]
    return max(float(layer.cpu_s[on_cpu].sum()), float(gpu_s))


def least_makespan(layer: Layer, *, time_limit_s: float | None = None, gap: float = 0.0) -> Division:
    """The best division of a layer.

    Args:
        time_limit_s: for the integer program; 0: none is solved.
        gap: that it may leave, as a share.
    """
    clock = Stopwatch(time_limit_s)
    if _is_counted(layer):
        on_cpu, by = _counted(layer), "counting"
    elif len(layer.cpu_s) <= MOST_TRIED:
        on_cpu, by = _tried(layer), "all subsets"
    else:
        return _solved(layer, clock, gap)
    value = makespan_s(layer, on_cpu)
    return Division(clock.stamp(answer("makespan", "s", value=value, bound=value, solver=by)), on_cpu)


def _is_counted(layer: Layer) -> bool:
    moved = layer.move_s[layer.move_s > 0]
    return bool(np.ptp(layer.gpu_s) == 0 and (not len(moved) or np.ptp(moved) == 0)) if len(layer.gpu_s) else True


def _counted(layer: Layer) -> Bools:
    """Of those that are there, and of those that are not, the CPU takes its cheapest: only how many is open."""
    here = np.flatnonzero(layer.move_s == 0)
    away = np.flatnonzero(layer.move_s > 0)
    here, away = here[np.argsort(layer.cpu_s[here])], away[np.argsort(layer.cpu_s[away])]
    cpu_here = np.concatenate([[0.0], np.cumsum(layer.cpu_s[here])])
    cpu_away = np.concatenate([[0.0], np.cumsum(layer.cpu_s[away])])
    gpu_s = float(layer.gpu_s[0]) if len(layer.gpu_s) else 0.0
    move_s = float(layer.move_s[away[0]]) if len(away) else 0.0
    left_here, moved = len(here) - np.arange(len(here) + 1), len(away) - np.arange(len(away) + 1)
    one_by_one = np.where(moved > 0, moved * max(move_s, gpu_s) + min(move_s, gpu_s), 0.0)
    on_gpu = layer.gpu_first_s + (left_here[:, None] + moved) * gpu_s
    done = np.maximum(np.maximum(on_gpu, one_by_one), cpu_here[:, None] + cpu_away)
    first, second = np.unravel_index(int(np.argmin(done)), done.shape)
    on_cpu = np.zeros(len(layer.cpu_s), dtype=np.bool_)
    on_cpu[here[:first]] = True
    on_cpu[away[:second]] = True
    return on_cpu


def _tried(layer: Layer) -> Bools:
    order = layer.johnson
    subsets = (np.arange(1 << len(order))[:, None] >> np.arange(len(order)) & 1).astype(bool)  # whether on the GPU
    link_s, gpu_s = np.zeros(len(subsets)), np.full(len(subsets), layer.gpu_first_s)
    for place, expert in enumerate(order.tolist()):
        link_s += subsets[:, place] * layer.move_s[expert]
        gpu_s = np.where(subsets[:, place], np.maximum(gpu_s, link_s) + layer.gpu_s[expert], gpu_s)
    done = np.maximum(gpu_s, ~subsets @ layer.cpu_s[order])
    on_cpu = np.zeros(len(order), dtype=np.bool_)
    on_cpu[order] = ~subsets[int(np.argmin(done))]
    return on_cpu


def simple_bound_s(layer: Layer) -> float:
    """No division is below: the longest expert where it is quickest, and the work if experts could be cut.

    Cut between CPU and GPU, and between CPU and link: those go to the CPU that it computes quickest for what they take
    of the other.
    """
    longest = float(np.minimum(layer.cpu_s, np.maximum(layer.move_s, 0.0) + layer.gpu_s).max(initial=0.0))
    cut = (_cut_s(layer.cpu_s, layer.gpu_s, layer.gpu_first_s), _cut_s(layer.cpu_s, layer.move_s, 0.0))
    return max(longest, layer.gpu_first_s, *cut)


def _cut_s(cpu_s: Floats, other_s: Floats, first_s: float) -> float:
    """The least of the later of two machines when work may be cut at will."""
    order = np.argsort(cpu_s / np.maximum(other_s, 1e-300))
    cpu_s, other_s = cpu_s[order], other_s[order]
    done_cpu = np.concatenate([[0.0], np.cumsum(cpu_s)])
    left = first_s + np.concatenate([np.cumsum(other_s[::-1])[::-1], [0.0]])
    place = int(np.searchsorted(done_cpu - left, 0.0))  # with so many experts the CPU is the later one
    if place == 0:
        return float(left[0])
    if place == len(done_cpu):
        return float(left[-1])
    share = (left[place - 1] - done_cpu[place - 1]) / (cpu_s[place - 1] + other_s[place - 1])
    return float(done_cpu[place - 1] + share * cpu_s[place - 1])


def _solved(layer: Layer, clock: Stopwatch, gap: float) -> Division:
    """The integer program, in units of the best rule's time."""
    candidates = [rule(layer)[0] for rule in RULES.values()]
    candidates += [np.ones(len(layer.cpu_s), np.bool_), np.zeros(len(layer.cpu_s), np.bool_)]
    best = min(candidates, key=lambda on_cpu: makespan_s(layer, on_cpu))
    unit, bound = makespan_s(layer, best) or 1.0, simple_bound_s(layer)
    by = "rules; bound: cut experts"
    if clock.left_s == 0 or bound >= unit * (1 - gap):
        return Division(clock.stamp(answer("makespan", "s", value=unit, bound=bound, solver=by)), best)
    program, order = Program("makespan", "s"), layer.johnson.tolist()
    (end,) = program.variables([1.0])
    on_gpu = program.variables(np.zeros(len(order)), high=1.0, integer=True)
    cpu, gpu, move = (column / unit for column in (layer.cpu_s, layer.gpu_s, layer.move_s))
    program.row([(end, 1.0), *((on_gpu[e], cpu[e]) for e in order)], ">=", float(cpu.sum()))
    first = layer.gpu_first_s / unit
    program.row([(end, 1.0), *((on_gpu[e], -gpu[e]) for e in order)], ">=", first)
    for place in range(len(order)):
        spent = [move[e] * (number <= place) + gpu[e] * (number >= place) for number, e in enumerate(order)]
        program.row([(end, 1.0), *((on_gpu[e], -by) for e, by in zip(order, spent, strict=True))], ">=", 0.0)
    solved = program.solve(time_limit_s=clock.left_s, gap=gap)
    if solved.values is not None:
        chosen = solved.values[on_gpu.start : on_gpu.stop] < 0.5
        best = min(best, chosen, key=lambda on_cpu: makespan_s(layer, on_cpu))
    bound = bound if solved.answer.bound is None else max(bound, solved.answer.bound * unit)
    found = answer("makespan", "s", value=makespan_s(layer, best), bound=bound, solver="HiGHS")
    return Division(clock.stamp(found), best)


def fiddler(layer: Layer) -> tuple[Bools, NDArray[np.int64]]:
    """Fiddler's rule as a policy: a missing expert runs on the CPU where that is faster than its transfer."""
    policy = api.load("on_miss", "fiddler")
    state = policy.module.initial_state(policy.params)
    columns = (layer.tokens, layer.move_s, layer.cpu_s, layer.gpu_s)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    chosen = [move > 0 and policy.module.decide(state, n, move, cpu, gpu) == CPU for n, move, cpu, gpu in rows]
    return np.array(chosen, dtype=np.bool_), _as_recorded(layer)


def fiddler_sum(layer: Layer) -> tuple[Bools, NDArray[np.int64]]:
    """As Fiddler's released code: all experts so that the *sum* of CPU's and GPU's seconds is least, not the later."""
    return layer.cpu_s < layer.move_s + layer.gpu_s, _as_recorded(layer)


def hybrimoe(layer: Layer) -> tuple[Bools, NDArray[np.int64]]:
    """HybriMoE's rule as a policy: the most loaded missing experts are moved, as many as end soonest."""
    policy = api.load("on_miss", "hybrimoe")
    asked = _asked(layer)
    policy.module.plan(policy.module.initial_state(policy.params), asked)
    on_cpu = np.array([action == CPU for action in asked.action], dtype=np.bool_)
    missing = layer.move_s > 0
    order = np.lexsort((np.array(asked.order), missing))
    return on_cpu, order


def _as_recorded(layer: Layer) -> NDArray[np.int64]:
    """Those that are there first, then the others."""
    return np.argsort(layer.move_s > 0, kind="stable")


def _asked(layer: Layer) -> Asked:
    count = len(layer.cpu_s)
    lists: dict[str, Any] = {name: [0.0] * count for name in ("share", "before", "low_s")}
    return Asked(
        there=[HERE if move == 0 else ABSENT for move in layer.move_s],
        expert=list(range(count)),
        tokens=layer.tokens.tolist(),
        fetch_s=layer.move_s.tolist(),
        cpu_s=layer.cpu_s.tolist(),
        gpu_s=layer.gpu_s.tolist(),
        resident=[move == 0 for move in layer.move_s],
        uses=[0] * count,
        action=[FETCH] * count,
        order=list(range(count)),
        instead=[-1] * count,
        **lists,
    )


#: Published rules by name: who runs on the CPU, and the GPU's order. [experts] each
RULES = {"fiddler": fiddler, "fiddler's code (sum)": fiddler_sum, "hybrimoe": hybrimoe}
