"""From scenarios to results: what is refused, what is warned about, and laws over random small scenarios."""

import math

import numpy as np
import pytest
from builders import trace_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import moesim
from moesim.errors import ScenarioError
from moesim.scenario import load_scenario
from moesim.scenario.build import build
from moesim.traces import save_trace

HARDWARE = "desktop-rtx3060-ddr4-32g-nvme3"
REQUESTS, PROMPT, TOKENS = 4, 3, 6


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    """A function: changes to a small scenario, to a mapping."""
    path = tmp_path_factory.mktemp("traces") / "t.npz"
    rng = np.random.default_rng(11)
    rows = [[rng.permutation(8)[:2] for _ in range(2)] for _ in range(REQUESTS * TOKENS)]
    ahead = np.roll(rows, -1, axis=1)
    ahead[:, -1] = -1
    requests = np.repeat(np.arange(REQUESTS), TOKENS)
    save_trace(trace_of(rows, num_experts=8, prompt=PROMPT, requests=requests, lookahead={1: ahead}), path)

    def make(**changes):
        base = {"model": "mixtral-8x7b", "trace": {"file": str(path), "stand_in": True}, "hardware": HARDWARE}
        return (
            base | {"memory": {"gpu_experts": "4 GiB", "host_experts": "20 GiB"}, "workload": {"requests": 2}} | changes
        )

    return make


def faults(source):
    with pytest.raises(ScenarioError) as raised:
        build(load_scenario(source))
    return {fault.place: fault.message for fault in raised.value.faults}


def test_faults_of_all_parts_are_told_at_once(scenario):
    found = faults(scenario(model="a", hardware="b", policies={"caching": "c"}, precision={"experts": "d"}))
    places = ("model", "hardware", "policies.caching", "precision.experts")
    assert list(found) == [f"scenario: {place}" for place in places]


def test_both_memories_are_told_at_once(scenario):
    found = faults(scenario(memory={"gpu_experts": "1 B", "host_experts": "1 B"}))
    assert list(found) == ["scenario: memory.gpu_experts", "scenario: memory.host_experts"]


def test_a_training_fraction_without_a_request_is_no_training(scenario):
    found = faults(scenario(policies={"caching": "static"}, workload={"train_fraction": 0.1}))
    assert found == {"scenario: policies.caching": "'static' learns from a training split, and it holds no request"}


def test_a_warm_up_that_never_ends_is_refused(scenario):
    found = faults(scenario(workload={"batch": 4, "warmup_requests": 1}))
    assert list(found) == ["scenario: workload.warmup_requests"]


def test_warnings_say_what_a_reader_must_know(scenario):
    policies = {"caching": "belady", "prefetch": {"name": "next-gate", "accuracy": 0.5}}
    told = " ".join(build(load_scenario(scenario(policies=policies))).warnings)
    for part in ("stand-in", "synthetic", "knows the future", "modelled from the true routing", "cold start"):
        assert part in told


SCENARIOS = st.fixed_dictionaries(
    {
        "policies": st.fixed_dictionaries(
            {
                "caching": st.sampled_from(["lru", "lfu", "fifo", "belady", "static"]),
                "prefetch": st.sampled_from(["none", "next-gate", {"name": "next-gate", "accuracy": 0.5}, "oracle"]),
                "on_miss": st.sampled_from(["fetch", "cpu-compute"]),
                "rule": st.sampled_from(["reserve", "evict_after"]),
                "link": st.sampled_from(["demand-first", "fifo"]),
            }
        ),
        "memory": st.fixed_dictionaries(
            {
                "gpu_experts": st.sampled_from(["1 GiB", "3 GiB", "auto"]),
                "host_experts": st.sampled_from(["12 GiB", "20 GiB"]),
            }
        ),
        "workload": st.fixed_dictionaries(
            {"batch": st.integers(1, 3), "train_fraction": st.just(0.25), "warmup_requests": st.integers(0, 2)},
            optional={
                "max_prompt": st.integers(1, 3),
                "max_output": st.integers(1, 4),
                "prefill_chunk": st.integers(1, 3),
            },
        ),
        "seed": st.integers(0, 2**63 - 1),
    }
)


def expected_tokens(workload):
    """Prefill, decode and output tokens of the scored requests."""
    scored = REQUESTS - 1 - workload["warmup_requests"]
    prompt = min(PROMPT, workload.get("max_prompt", PROMPT))
    output = min(TOKENS - PROMPT + 1, workload.get("max_output", TOKENS))
    return scored * prompt, scored * (output - 1), scored * output


@settings(max_examples=25, deadline=None)
@given(changes=SCENARIOS)
def test_a_result_conserves_time_lookups_prefetches_and_tokens(scenario, changes):
    try:
        result = moesim.run(scenario(**changes))
    except ScenarioError as error:
        assume("the warm-up lasts until the last step" not in str(error))
        raise
    counters, duration = result.counters, result.headline.duration_s
    assert math.isclose(sum(part.seconds for part in result.breakdown.total), duration, rel_tol=1e-9)
    assert counters.hits + counters.late + counters.misses == counters.lookups
    assert counters.lookups == sum(row.lookups for row in result.layers)
    assert all(0 <= link.busy_s <= duration * (1 + 1e-9) for link in result.links)
    outcomes = ("redundant", "withdrawn", "no_room", "started")
    count = {name: getattr(counters, f"prefetch_{name}") for name in ("proposed", *outcomes, "used", "late", "wasted")}
    assert count["proposed"] == sum(count[name] for name in outcomes)
    assert count["started"] == count["used"] + count["late"] + count["wasted"]
    if changes["workload"]["batch"] == 1:
        tokens = (counters.prefill_tokens, counters.decode_tokens, counters.output_tokens)
        assert tokens == expected_tokens(changes["workload"])
    assert sum(row.output_tokens for row in result.requests) == counters.output_tokens


@pytest.mark.parametrize("on_miss", ["fetch", "hobbit"])
def test_evidence_accounts_for_all_time_and_says_what_is_extrapolated(scenario, on_miss):
    result = moesim.run(scenario(policies={"on_miss": on_miss}, precision={"experts": "int8-g128"}))
    seconds = {part.name: part.seconds for part in result.breakdown.total}
    assert sum(row.seconds for row in result.evidence) == pytest.approx(sum(seconds.values()))
    assert sum(result.evidence_shares.values()) == pytest.approx(1)
    outside = [row for row in result.evidence if row.extrapolated]
    assert all(row.kind == "assumed" for row in outside)
    # constants of a form that was fitted in bf16 price narrower experts, and both page and Result say so
    assert any(row.term.startswith("expert FFN") for row in outside)
    (warning,) = (told for told in result.warnings if told.startswith("extrapolated:"))
    assert "; fitted in bf16" in warning


def test_ways_of_transfers_reach_the_engine_and_the_evidence(scenario):
    def times(**transfers):
        built = build(load_scenario(scenario(transfers=transfers)))
        return built, built.setup.times

    usual, pinned = times()
    pageable, staged = times(host="pageable", copies=3, flash="mmap", lanes=2)
    node, size = usual.parts.node, usual.setup.sizes[0]
    # a thread's 7 GB/s before the link's bandwidth, which starts three times; the default is one pinned copy
    link = size / node.link.bandwidth.value
    assert pinned.copy_s[0] == pytest.approx(node.link.latency.value + link)
    assert staged.copy_s[0] == pytest.approx(3 * node.link.latency.value + link + size / 7e9)
    assert (staged.read_s > pinned.read_s).all()
    names = {constant.name for waited in pageable.waited for constant in waited.term.constants}
    assert {"cpu.thread_copy", "storage.iops", "mmap.touch"} <= names
    for limit in ("PCIe", "flash", "CPU"):
        assert sum(waited.share for waited in pageable.waited if waited.limit == limit) == pytest.approx(1)


def test_mapped_files_are_not_pinned(scenario):
    with pytest.raises(ScenarioError, match="flash: mmap gives pageable memory"):
        load_scenario(scenario(transfers={"flash": "mmap"}))
