"""In how many bits experts are stored: plans, ranks and nested bit-planes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import op, setup_of, trace_of, visits_for

from moesim.engine import simulate
from moesim.errors import PolicyError
from moesim.policies import api
from moesim.policies.precision import Planes, StoredExperts
from moesim.scenario.planes import expand

PLANES = Planes((2, 3, 4), (0.3, 0.4, 0.3), hottest_first=True)


def assigned(name, folder=Path(), uses=None, **params):
    policy = api.load("precision", name, params)
    return policy.module.assign(policy.params, StoredExperts(2, 3, "bf16", folder, uses))


def test_uniform_is_the_scenario_s_own_precision_by_default():
    assert assigned("uniform") == ["bf16"] * 6
    assert assigned("uniform", precision="int4") == ["int4"] * 6


def test_a_plan_names_experts_and_leaves_the_others(tmp_path):
    (tmp_path / "plan.csv").write_text("layer,expert,precision\n0,2,int8\n1,0,int2\n")
    assert assigned("plan", tmp_path, file="plan.csv") == ["bf16", "bf16", "int8", "int2", "bf16", "bf16"]
    (tmp_path / "plan.csv").write_text("layer,expert,precision\n0,7,int8\nx,0,int2\n")
    with pytest.raises(PolicyError) as error:
        assigned("plan", tmp_path, file="plan.csv")
    assert [fault.place.rpartition(":")[2] for fault in error.value.faults] == ["2", "3"]
    (tmp_path / "plan.csv").write_text("expert,precision\n0,int8\n")
    with pytest.raises(PolicyError, match="no column layer"):
        assigned("plan", tmp_path, file="plan.csv")


def test_edgemoe_lowers_the_least_used_or_those_whose_losses_are_tolerated(tmp_path):
    uses = np.array([5, 0, 9, 1, 7, 2])
    assert assigned("edgemoe", uses=uses, share=0.5) == ["int4", "int2", "int4", "int2", "int4", "int2"]
    (tmp_path / "loss.csv").write_text("layer,expert,loss\n0,0,0.5\n0,1,0.01\n0,2,0.3\n1,0,0.004\n1,1,0.02\n1,2,0.9\n")
    found = assigned("edgemoe", tmp_path, losses="loss.csv", tolerable=0.02)
    assert found == ["int4", "int2", "int4", "int2", "int4", "int4"]
    with pytest.raises(PolicyError, match="training split"):
        assigned("edgemoe")


def nested(seed, order, batch=2):
    rng = np.random.default_rng(seed)
    rows = [[rng.permutation(4)[:2] for _ in range(2)] for _ in range(12)]
    trace = trace_of(rows, num_experts=4, requests=np.repeat([0, 1], 6), prompt=2)
    visits = visits_for(trace, batch=batch)
    return trace, visits, *expand(visits, replace(PLANES, hottest_first=order), np.random.default_rng(seed))


@pytest.mark.parametrize("order", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_planes_keep_every_token_and_come_lowest_first(seed, order):
    _, visits, expanded, exact = nested(seed, order)
    assert expanded.num_experts == 3 * visits.num_experts
    assert exact.sum() == len(visits.activation_key)
    assert expanded.gates.total.sum() == pytest.approx(visits.gates.total.sum())
    assert expanded.lookup_tokens.sum() == len(expanded.activation_key)
    assert (expanded.lookup_key[expanded.activation_lookup] == expanded.activation_key).all()
    for visit in range(visits.num_visits):
        keys = expanded.lookup_key[expanded.lookup_start[visit] : expanded.lookup_start[visit + 1]].tolist()
        assert len(set(keys)) == len(keys)
        for key in keys:
            assert key % 3 == 0 or keys.index(key - 1) < keys.index(key)
        tokens = exact[expanded.lookup_start[visit] : expanded.lookup_start[visit + 1]]
        assert tokens.sum() == visits.activation_start[visit + 1] - visits.activation_start[visit]


def test_the_hottest_plane_is_asked_for_first():
    """Two experts: of a prompt's tokens 3 use expert 0, 2 expert 1; each head is the plane on which most wait."""
    trace = trace_of([[[0]], [[0]], [[0]], [[1]], [[1]]], num_experts=2, prompt=5)
    visits = visits_for(trace)

    drawn = SimpleNamespace(choice=lambda *_, **__: np.array([1, 1, 0, 0, 0]))
    expanded, exact = expand(visits, replace(PLANES, bits=(2, 3), shares=(0.5, 0.5)), drawn)
    # expert 0: plane 0 for 1 token, plane 1 for 2; expert 1: plane 0 for 2
    assert expanded.lookup_key.tolist() == [2, 0, 1]
    assert exact.tolist() == [2, 1, 2]


@pytest.mark.parametrize("caching", ["lru", "d2moe"])
@pytest.mark.parametrize("spare", [0, 1, 4])
@pytest.mark.parametrize("seed", [7, 8])
def test_a_lower_plane_is_there_before_a_higher_one_is_computed(caching, spare, seed):
    trace, _, expanded, exact = nested(seed, True)
    slots = int(np.diff(expanded.lookup_start).max()) + spare
    setup = setup_of(trace, slots=slots, visits=expanded, caching=caching)
    setup = replace(setup, times=replace(setup.times, expert=op(np.where(exact > 0, 1.0, 0.0))))
    outcome = simulate(setup)
    ready: dict[tuple[int, int], float] = {}
    for span in outcome.compute:
        if span.key >= 0:
            if span.key % 3:
                assert ready[span.visit, span.key - 1] <= span.start_s
            ready[span.visit, span.key] = span.end_s
    assert outcome.resident_bytes.max() <= setup.gpu.capacity_bytes
