"""What tokens, experts and streams may do beside the plain exchange: each against what it must not change."""

import numpy as np
import pytest
from parallel_scenarios import run_of, scenario_of

from moesim.engine.expert_parallel import FETCHED, GATHERED, SHARDS, simulate_parallel
from moesim.errors import MoesimError
from moesim.scenario import load_scenario
from moesim.scenario.parallel.build import build_parallel
from moesim.scenario.parallel.run import run_parallel
from moesim.scenario.parallel.summary import summarise_parallel
from moesim.setup.parallel import Moved, Overlap, ParallelSetup
from moesim.studies.replication import with_studies


def adds_up(run):
    assert run.busy_s + sum(run.waits_s.values()) == pytest.approx(float(run.step_s.sum()))
    assert all(seconds >= -1e-15 for seconds in run.waits_s.values())


def by_hand(dispatch, experts, shards, parts=1, separate=False):
    """One pass of one layer on two GPUs of one rank each alike; seconds are whole numbers."""
    shape = (1, parts, 1, 2)
    moved = Moved(np.full(shape, float(dispatch)), np.full(shape, float(dispatch)))
    return simulate_parallel(
        ParallelSetup(
            before_s=np.zeros((1, 1, 1, 2)),
            after_s=np.zeros((1, 1, 2)),
            collective_s=np.zeros((1, 1, 1)),
            shared_s=np.zeros((1, 1, 1, 2)),
            experts_s=np.full(shape, float(experts)),
            shard_s=np.full((1, parts, 1), 2.0 * shards),
            dispatch=(moved,),
            combine=(moved,),
            tiles=np.ones(shape),
            sync="barrier",
            overlap=Overlap(pipeline=parts, separate_links=separate),
            tensor_group=2,
        )
    )


@pytest.mark.parametrize(
    ("dispatch", "experts", "shards", "parts", "separate", "seconds"),
    [
        (3, 4, 1, 1, False, 12),  # one after the other: 3 1 4 1 3
        (3, 4, 1, 2, False, 16),  # experts 4-8 and 8-12, then the second chunk's 1 and 3
        (3, 1, 2, 2, False, 20),  # one stream: 3 2 3 2, and the same back
        (3, 1, 2, 2, True, 16),  # dispatches 0-3, 3-6 and shards 3-5, 6-8 at once; back 8-10, 10-12, 10-13, 13-16
    ],
)
def test_chunks_and_separate_links_by_hand(dispatch, experts, shards, parts, separate, seconds):
    outcome = by_hand(dispatch, experts, shards, parts, separate)
    assert outcome.pass_s.tolist() == [seconds]
    assert outcome.waits_s["slower GPUs"].max() == 0  # both are alike
    waited = sum(each[0, 0] for each in outcome.waits_s.values())
    assert waited + outcome.busy_s[0, 0] == seconds
    assert outcome.exchange_s[SHARDS][0, 0] == 2 * parts * shards


def test_a_phase_of_two_is_waited_for_under_its_own_name():
    run = run_of(batch={"routing": "balanced"}, exchange={"kind": "hierarchical"})
    assert run.waits_s["slower GPUs"] == pytest.approx(0, abs=1e-12)
    assert run.waits_s["dispatch"] == pytest.approx(run.waits_s["combine"], rel=0.2)


COHERENT = {"exchange": {"coherent": "tokens"}}


@pytest.mark.parametrize("kind", ["nccl", "hierarchical", "deepep-low-latency", "fused"])
def test_tokens_that_go_on_are_all_computed(kind):
    run = run_of(exchange={"kind": kind, "coherent": "kv"})
    counts = run.built.stages[0].counts
    assert counts.routed.sum() == 2 * 16 * 16 * 4 * 24
    np.testing.assert_array_equal(counts.held.sum(axis=-1), 16 * 16)  # no token is lost or doubled on its way
    assert run.waits_s[GATHERED] > 0
    adds_up(run)


def test_with_one_expert_a_token_needs_no_way_back():
    once, twice = (run_of(model="switch-base-128", **settings) for settings in (COHERENT, {}))
    assert "combine" in twice.waits_s
    assert "combine" not in once.waits_s
    counts = once.built.stages[0].counts
    first, second = counts.held[0, 0, 1], counts.routed[0, 0, 0]  # who computes layer 0 holds the token before layer 1
    np.testing.assert_array_equal(first, second)


def test_affinity_pays_only_where_tokens_go_on():
    """Every expert is followed by one other: placed together, no token leaves its GPU after the first layer."""
    sent = {}
    for coherent in (None, "tokens"):
        for placement in ("contiguous", "affinity-sequential"):
            scenario = scenario_of(
                model="switch-base-128",
                layers=12,
                placement=placement,
                exchange={"coherent": coherent},
                profile="oracle",
            )
            scenario["trace"]["synthetic"] |= {"affinity": 1.0, "skew": 0.0}
            counts = run_parallel(load_scenario(scenario)).built.stages[0].counts
            sent[coherent, placement] = counts.items.sum()
    assert sent["tokens", "affinity-sequential"] < 0.1 * sent["tokens", "contiguous"]
    assert sent[None, "affinity-sequential"] > 0.9 * sent[None, "contiguous"]


def test_moe_layers_alone_take_less_by_attention_and_launches_add_up():
    whole, alone, more = (run_of(), run_of(batch={"scope": "moe"}), run_of(launches=10))
    assert {"attention decode", "output head"} <= {part.name for part in summarise_parallel(whole).breakdown}
    assert not {"attention decode", "output head"} & {part.name for part in summarise_parallel(alone).breakdown}
    assert alone.waits_s == pytest.approx(whole.waits_s)
    launch = whole.built.parts.gpu.kernel_launch.value
    assert more.step_s - whole.step_s == pytest.approx(np.full(2, 24 * 10 * launch))


def test_dynamic_capacity_drops_nothing_and_pads_to_the_fullest():
    padded = run_of(skew=1.2, capacity={"factor": "dynamic", "padded": True})
    free = run_of(skew=1.2)
    one, other = padded.built.stages[0].counts, free.built.stages[0].counts
    assert one.dropped == 0
    assert (one.pairs >= other.pairs).all()
    np.testing.assert_array_equal(one.routed, other.routed)
    np.testing.assert_allclose(one.pairs, one.pairs[..., :1].repeat(16, axis=-1))  # all ranks pad alike


def test_the_best_pipelining_degree_is_the_fastest_of_those_tried():
    run = run_of(batch={"tokens_per_gpu": 12, "steps": 1}, overlap={"pipeline": "best"})
    assert set(run.tried) == {1, 2, 4}  # those that divide 12 tokens
    assert run.step_s.mean() == min(run.tried.values())
    assert any("best pipelining degree" in warning for warning in summarise_parallel(run).warnings)


DRIFT = {"skew": 1.2, "placement": "eplb", "redundant_experts": 16}


def test_load_drifts_and_placing_anew_follows_it():
    batch = {"steps": 6, "drift": 0.3}
    still = run_of(**DRIFT, batch={"steps": 6})
    stale, fresh = (
        run_of(**DRIFT, batch=batch, rebalance=rebalance) for rebalance in (None, {"every": 1, "spread": 100})
    )
    shares = [np.sort(run.built.stages[0].counts.routed.sum(axis=(1, 3)), axis=1) for run in (still, stale)]
    np.testing.assert_array_equal(*shares)  # who is loved changes, not how much
    after = [summarise_parallel(run).step_imbalance for run in (still, stale, fresh)]
    assert after[0][0] == after[1][0]
    assert after[1][-1] > 1.2 * after[0][-1]
    assert after[2][-1] < after[1][-1]
    moved = fresh.built.plan
    assert moved.moves_s.sum() > 0


def offloaded(gpu_experts, caching="lru", **settings):
    scenario = scenario_of(skew=1.2, batch={"steps": 4}, **settings)
    scenario["memory"] = {"gpu_experts": gpu_experts}
    scenario["policies"]["caching"] = caching
    return run_parallel(load_scenario(scenario))


def test_expert_caches_fetch_what_they_do_not_hold():
    everything, half, little = (offloaded(size) for size in ("4 GiB", "1 GiB", "60 MB"))
    plain = run_of(skew=1.2, batch={"steps": 4})
    np.testing.assert_allclose(everything.step_s, plain.step_s)
    figures = [summarise_parallel(run).offload for run in (everything, half, little)]
    assert figures[0].fetches == 0
    assert figures[0].lookups == figures[2].lookups
    assert figures[0].hit_rate_per_lookup >= figures[1].hit_rate_per_lookup >= figures[2].hit_rate_per_lookup
    assert figures[2].slots_per_gpu == 1
    for run, told in zip((half, little), figures[1:], strict=True):
        adds_up(run)
        assert run.waits_s[FETCHED] > 0
        assert told.fetched_bytes == told.fetches * run.built.cached.expert_bytes
        assert run.busy_s == pytest.approx(everything.busy_s)
        assert (run.built.memory.needed < plain.built.memory.needed).all()


def test_what_would_help_a_run_that_fetches():
    run = offloaded("1 GiB")
    found = {change.change: change for change in with_studies(run).bottleneck.what_if}
    everything = run_of(skew=1.2, batch={"steps": 4})
    assert found["every expert on its GPU"].step_s == pytest.approx(everything.step_s.mean())
    assert 1 < found["twice the host link's speed"].speedup <= 2


def test_a_static_cache_keeps_what_was_most_used():
    lru, static = (offloaded("1 GiB", caching) for caching in ("lru", "static"))
    assert static.built.stages[0].fetched.fetches.sum() < lru.built.stages[0].fetched.fetches.sum()


FAULTS = {
    "coherent needs one home": ({"exchange": {"coherent": "kv"}, "tp": 2}, "each token has one home at a time"),
    "coherent and DeepEP": ({"exchange": {"coherent": "kv", "kind": "deepep-normal"}}, "needs tokens at home"),
    "padding needs a factor": ({"capacity": {"padded": True}}, "padded needs a factor"),
}


@pytest.mark.parametrize(("settings", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told(settings, message):
    with pytest.raises(MoesimError, match=message):
        build_parallel(load_scenario(scenario_of(**settings)))


@pytest.mark.parametrize(
    ("size", "caching", "message"), [("1 MB", "lru", "hold no expert"), ("1 GB", "belady", "future")]
)
def test_faults_of_caches_are_told(size, caching, message):
    with pytest.raises(MoesimError, match=message):
        offloaded(size, caching)
