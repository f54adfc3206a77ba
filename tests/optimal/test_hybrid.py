"""The least makespan of a layer against every subset in every order; published rules are never below it."""

import os
from itertools import permutations

import numpy as np
import pytest

from moesim.optimal import hybrid
from moesim.optimal.hybrid import RULES, Layer, least_makespan, makespan_s

INSTANCES = int(os.environ.get("MOESIM_OPTIMA", "40"))


def layer_of(rng, experts, *, alike):
    here = rng.random(experts) < 0.4
    move = np.full(experts, float(rng.integers(1, 9))) if alike else rng.integers(1, 9, experts).astype(float)
    gpu = np.full(experts, float(rng.integers(1, 4))) if alike else rng.integers(1, 5, experts).astype(float)
    tokens = rng.integers(1, 9, experts)
    return Layer(
        cpu_s=tokens * float(rng.integers(1, 4)) + float(rng.integers(0, 3)),
        gpu_s=gpu,
        move_s=np.where(here, 0.0, move),
        tokens=tokens,
        gpu_first_s=float(rng.integers(0, 3)),
    )


def by_trying_all(layer):
    """Every subset on the CPU, and every order of the others on link and GPU."""
    experts, best = len(layer.cpu_s), np.inf
    for mask in range(1 << experts):
        on_cpu = np.array([mask >> e & 1 for e in range(experts)], dtype=bool)
        gpu = min(
            (makespan_s(layer, on_cpu, np.array(order)) for order in permutations(range(experts))), default=np.inf
        )
        best = min(best, gpu)
    return best


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_counting_subsets_and_program_find_the_least(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    layer = layer_of(rng, int(rng.integers(1, 6)), alike=seed % 2 == 0)
    best = by_trying_all(layer)
    assert hybrid.simple_bound_s(layer) <= best + 1e-9
    found = least_makespan(layer)
    assert found.answer.status == "optimal"
    assert found.answer.value == pytest.approx(best)
    assert makespan_s(layer, found.on_cpu) == pytest.approx(best)
    monkeypatch.setattr(hybrid, "MOST_TRIED", 0)
    monkeypatch.setattr(hybrid, "_is_counted", lambda _: False)
    program = least_makespan(layer)
    assert program.answer.status == "optimal"
    assert program.answer.value == pytest.approx(best)
    for rule in RULES.values():
        on_cpu, order = rule(layer)
        assert makespan_s(layer, on_cpu, order) >= best - 1e-9


@pytest.mark.parametrize("seed", range(INSTANCES))
def test_counting_agrees_with_subsets_on_larger_layers(seed, monkeypatch):
    layer = layer_of(np.random.default_rng(seed), 10, alike=True)
    counted = least_makespan(layer)
    assert counted.answer.solver == "counting"
    monkeypatch.setattr(hybrid, "_is_counted", lambda _: False)
    assert least_makespan(layer).answer.value == pytest.approx(counted.answer.value)


def test_rules_worked_out_by_hand():
    """Three missing experts of 1, 2 and 6 tokens: CPU 1 s a token, transfer 3 s, GPU 1 s."""
    tokens = np.array([1, 2, 6])
    layer = Layer(tokens.astype(float), np.ones(3), np.full(3, 3.0), tokens)
    on_cpu, order = hybrid.fiddler(layer)
    assert on_cpu.tolist() == [True, True, False]  # 1 < 3, 2 < 3, 6 > 3
    assert makespan_s(layer, on_cpu, order) == 4.0  # the transfer and the GPU: 3 + 1; the CPU: 3
    assert hybrid.fiddler_sum(layer)[0].tolist() == [True, True, False]
    assert hybrid.hybrimoe(layer)[0].tolist() == [True, True, False]
    assert least_makespan(layer).answer.value == 4.0


def test_fiddlers_code_minimises_the_sum_where_the_later_counts():
    """Eight experts that the CPU computes a little faster each: all go there, and the GPU stands idle."""
    layer = Layer(np.full(8, 3.9), np.ones(8), np.full(8, 3.0), np.ones(8, np.int64))
    on_cpu, order = hybrid.fiddler_sum(layer)
    assert on_cpu.all()
    assert makespan_s(layer, on_cpu, order) == pytest.approx(31.2)
    assert least_makespan(layer).answer.value == pytest.approx(15.6)  # four each: CPU 15.6, link and GPU 13


def test_a_time_limit_keeps_the_best_rule():
    layer = layer_of(np.random.default_rng(0), 40, alike=False)
    found = least_makespan(layer, time_limit_s=0.001)
    assert found.answer.value <= min(makespan_s(layer, *rule(layer)) for rule in RULES.values()) + 1e-9
    assert len(found.on_cpu) == 40
