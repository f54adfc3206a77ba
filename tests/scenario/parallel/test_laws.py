"""Laws of parallel runs: nothing is lost between GPUs, symmetric runs are symmetric, time adds up."""

import numpy as np
import pytest
from parallel_scenarios import run_of, scenario_of

from moesim.errors import MoesimError
from moesim.policies import api
from moesim.scenario import load_scenario
from moesim.scenario.parallel.build import build_parallel
from moesim.scenario.parallel.run import pipeline_s
from moesim.scenario.parallel.summary import summarise_parallel

KINDS = ["nccl", "hierarchical", "deepep-normal", "deepep-low-latency", "fused"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_is_computed_and_bytes_equal_the_traffic(kind):
    run = run_of(exchange={"kind": kind})
    counts = run.built.stages[0].counts
    tokens = 2 * 16 * 16
    assert counts.routed.sum() == tokens * 4 * 24 == counts.pairs_total
    assert counts.dropped == 0
    item = run.built.parts.model.hidden_size * 2
    topology = run.built.parts.topology
    both = topology.link_loads(counts.items) * item + topology.link_loads(counts.items.T) * item
    np.testing.assert_allclose(counts.link_bytes, both)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sync", ["barrier", "one-sided"])
def test_busy_and_waiting_add_up_to_the_steps(kind, sync):
    run = run_of(exchange={"kind": kind, "sync": sync})
    whole = float(run.step_s.sum())
    assert run.busy_s + sum(run.waits_s.values()) == pytest.approx(whole)
    assert all(seconds >= -1e-15 for seconds in run.waits_s.values())
    result = summarise_parallel(run)
    assert sum(part.share for part in result.breakdown) == pytest.approx(1)
    assert sum(result.evidence_shares.values()) == pytest.approx(1)
    for bound in result.bounds:
        assert bound.ours >= bound.value * (1 - 1e-12)


def test_balanced_routing_gives_all_ranks_the_same_times():
    run = run_of(batch={"routing": "balanced"})
    setup = run.built.stages[0].setup
    for array in (setup.before_s, setup.experts_s, setup.dispatch[0].sent_s, setup.dispatch[0].received_s):
        np.testing.assert_allclose(array, array[..., :1].repeat(array.shape[-1], axis=-1))
    assert run.waits_s["slower GPUs"] == pytest.approx(0, abs=1e-12)
    assert summarise_parallel(run).headline.imbalance == 1


def test_one_sided_is_never_slower_than_a_barrier():
    fast, slow = (run_of(exchange={"sync": sync}).step_s for sync in ("one-sided", "barrier"))
    assert (fast <= slow + 1e-15).all()


def test_a_slow_gpu_holds_up_the_others():
    plain, slow = run_of(), run_of(stragglers={"gpus": [3], "slowdown": 1.5})
    assert (slow.step_s > plain.step_s).all()
    assert slow.waits_s["slower GPUs"] > plain.waits_s["slower GPUs"]


def test_capacity_drops_are_counted_and_padding_costs_time():
    free = run_of(skew=1.5)
    tight = run_of(skew=1.5, capacity={"factor": 1.0})
    padded = run_of(skew=1.5, capacity={"factor": 2.0, "padded": True})
    counts = tight.built.stages[0].counts
    assert counts.dropped > 0
    assert counts.routed.sum() + counts.dropped == counts.pairs_total == free.built.stages[0].counts.pairs_total
    per_expert = 2  # ceil(1.0 * 16 tokens * 4 / 32)
    assert counts.routed.max() <= per_expert * 16 * 2  # two experts on each rank, 16 senders
    assert padded.built.stages[0].counts.items.sum() == 2 * 24 * 16 * 15 * 2 * 4
    even, padded_even = (
        run_of(batch={"routing": "balanced"}, capacity=capacity) for capacity in ({}, {"factor": 2.0, "padded": True})
    )
    assert (padded_even.step_s > even.step_s).all()


@pytest.mark.parametrize("name", [name for name in api.names("placement") if name != "fixed"])
def test_every_placement_runs_and_none_beats_the_bound(name):
    run = run_of(placement=name)
    result = summarise_parallel(run)
    bound = next(bound for bound in result.bounds if bound.unit == "pairs")
    assert bound.ours >= bound.value
    assert result.policies["placement"]["name"] == name


def test_replicas_balance_and_take_memory():
    before, after = (
        run_of(skew=1.2, placement=name, redundant_experts=more) for name, more in (("contiguous", 0), ("eplb", 16))
    )
    one, other = summarise_parallel(before), summarise_parallel(after)
    assert other.headline.imbalance < one.headline.imbalance
    rows = {row.name: row.mean_bytes for row in other.memory.rows}
    assert rows["replicas"] == pytest.approx(rows["routed experts"] / 2)
    assert {row.name: row.mean_bytes for row in one.memory.rows}["replicas"] == 0


def test_rebalancing_costs_time_and_moves_bytes():
    still = run_of(skew=1.2, placement="eplb", redundant_experts=16, batch={"steps": 4})
    moved = run_of(skew=1.2, placement="eplb", redundant_experts=16, batch={"steps": 4}, rebalance={"every": 2})
    assert moved.built.plan.moved_bytes.sum() > 0
    assert moved.waits_s["moving weights"] == pytest.approx(moved.built.plan.moves_s.sum())
    assert "moving weights" not in still.waits_s
    hidden = run_of(
        skew=1.2, placement="eplb", redundant_experts=16, batch={"steps": 4}, rebalance={"every": 2, "hidden": 1.0}
    )
    assert "moving weights" not in hidden.waits_s


def test_rebalancing_sees_no_later_step():
    """What is placed at step 2 follows from steps 0 and 1: with more steps behind it, it is the same."""
    plans = [
        run_of(placement="eplb", redundant_experts=16, batch={"steps": steps}, rebalance={"every": 2}).built.plan
        for steps in (3, 4)
    ]
    short, long = (plan.placements[2] for plan in plans)
    assert len({id(placement) for placement in plans[1].placements}) == 2
    assert short.logical.shape == long.logical.shape


def test_overlap_hides_what_it_may_and_never_computes_less():
    plain = run_of(batch={"tokens_per_gpu": 64})
    for overlap in ({"two_batches": True}, {"pipeline": 2}):
        run = run_of(batch={"tokens_per_gpu": 64}, overlap=overlap)
        result = summarise_parallel(run)
        assert run.busy_s >= plain.busy_s * (1 - 1e-9)  # smaller products are no cheaper
        assert sum(row.hidden_s for row in result.exchanges) > 0
        for row in result.exchanges:
            assert row.hidden_s + row.exposed_s == pytest.approx(row.busy_s)


def test_a_pipeline_by_hand():
    """Two microbatches through stages of 2 and 3 s, sending takes 1: ends 2, 4 and 6, 9."""
    pass_s = np.array([[[2.0, 3.0], [2.0, 3.0]]])
    assert pipeline_s(pass_s, 1.0).tolist() == [9.0]


def test_pipeline_stages_hold_all_layers_once():
    run = run_of(pp=2, batch={"microbatches": 2})
    assert sum(stage.setup.num_layers for stage in run.built.stages) == 24
    assert run.waits_s["pipeline bubble"] > 0
    memory = run.built.memory
    assert len(memory.needed) == 16
    whole = run_of().built.memory.uses["routed experts"].sum()
    assert memory.uses["routed experts"].sum() == pytest.approx(whole)


def test_tensor_and_expert_sharding_divide_weights():
    plain, sharded = run_of(), run_of(tp=2, ep=8, expert_tp=2)
    assert sharded.built.memory.uses["attention and dense"].max() < plain.built.memory.uses["attention and dense"].max()
    assert sharded.built.memory.uses["routed experts"].sum() == pytest.approx(
        plain.built.memory.uses["routed experts"].sum()
    )
    assert "tensor-parallel collectives" in sharded.waits_s


FAULTS = {
    "no such cluster": ({"cluster": "hgx-h100-x3"}, "did you mean"),
    "slots": ({"redundant_experts": 3}, "35 slots of a layer don't divide over 16 ranks"),
    "degrees": ({"dp": 3}, "dp 3 times tp 1 is not 16 GPUs"),
    "tokens": ({"batch": {"tokens_per_gpu": 15}, "overlap": {"two_batches": True}}, "15 tokens don't divide"),
    "too many GPUs": ({"gpus": 64}, "has 16 GPUs"),
    "moetuner replicates nothing": ({"placement": "moetuner", "redundant_experts": 16}, "places each expert once"),
}


@pytest.mark.parametrize(("settings", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told(settings, message):
    with pytest.raises(MoesimError, match=message):
        build_parallel(load_scenario(scenario_of(**settings)))


def test_learning_needs_something_to_learn_from():
    scenario = scenario_of(placement="eplb")
    scenario["workload"] = {}
    with pytest.raises(MoesimError, match="learns from a training split"):
        build_parallel(load_scenario(scenario))


def test_the_same_seed_gives_the_same_bytes():
    texts = {summarise_parallel(run_of(placement="random", stragglers={"jitter": 0.1})).to_json() for _ in range(2)}
    assert len(texts) == 1
