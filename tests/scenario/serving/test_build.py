"""Serving scenarios: what fits where, what steps cost, faults told together; a published run predicted."""

import csv
from pathlib import Path

import numpy as np
import pytest
from builders import trace_of

from moesim.costs.resident import Parallel
from moesim.errors import ScenarioError
from moesim.models import Precisions, get_precision, load_model
from moesim.scenario import load_scenario
from moesim.scenario.run import result_of
from moesim.scenario.serving.build import build_serving
from moesim.scenario.serving.memory import gpu_memory, kv_bytes_per_token
from moesim.traces import save_trace

BF16 = Precisions(get_precision("bf16"), get_precision("bf16"))
CHAT = {
    "model": "qwen3-30b-a3b",
    "trace": {"file": "none", "synthetic": {"layers": 2, "requests": 4, "prompt": 16, "output": 32}},
    "hardware": {"node": "hgx-h100-8"},
    "serving": {"max_num_seqs": 32, "max_num_batched_tokens": 512, "slo": {"ttft": "1 s", "tpot": "50 ms"}},
    "arrivals": {"rate": "5 /s", "requests": 60, "prompt": 200, "output": 20},
}


def scenario(**changes):
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in CHAT.items()}
    for key, value in changes.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return load_scenario(merged)


def test_kv_cache_by_arithmetic():
    llama = load_model("llama-3.1-8b")
    assert kv_bytes_per_token(llama, Parallel(), 2.0) == 2 * 8 * 128 * 32 * 2
    assert kv_bytes_per_token(llama, Parallel(tp=4), 2.0) == 2 * 8 * 128 * 32 * 2 / 4
    assert kv_bytes_per_token(llama, Parallel(tp=16), 2.0) == 2 * 8 * 128 * 32 * 2 / 8  # 8 KV heads
    deepseek = load_model("deepseek-v3")  # a latent, on every GPU
    assert kv_bytes_per_token(deepseek, Parallel(tp=8), 2.0) == (512 + 64) * 61 * 2


def test_memory_adds_up_and_what_does_not_fit_is_told():
    llama = load_model("llama-3.1-8b")
    given = {"total": 80 * 2**30, "utilization": 0.9, "reserve": 2**30}
    plan = gpu_memory(llama, BF16, Parallel(), kv_tokens=None, **given)
    assert plan.experts + plan.dense + plan.kv + plan.reserve == plan.total
    assert plan.kv_tokens == int((0.9 * 80 * 2**30 - plan.dense - 2**30) / 131072)
    with pytest.raises(ScenarioError, match="don't fit: there is room for"):
        gpu_memory(llama, BF16, Parallel(), kv_tokens=10**7, **given)
    with pytest.raises(ScenarioError, match="the weights don't fit on a GPU"):
        gpu_memory(load_model("deepseek-v3"), BF16, Parallel(), kv_tokens=None, **given)


@pytest.mark.parametrize(
    "serving",
    [
        {},
        {"parallel": {"tp": 2}},
        {"parallel": {"tp": 2, "ep": 2}},
        {"parallel": {"dp": 2, "ep": 2}, "exchange": "normal"},
        {"parallel": {"tp": 2, "dp": 2, "ep": 4}, "exchange": "all-reduce"},
    ],
)
def test_tables_agree_with_the_forms(serving):
    error = build_serving(scenario(serving=serving)).error
    assert error.mean < 0.02
    assert error.largest < 0.15


def test_a_run_adds_up_and_repeats_itself():
    result = result_of(scenario())
    head, counters = result.headline, result.counters
    assert (counters.arrived, counters.ended, counters.rejected) == (60, 60, 0)
    assert counters.output_tokens == 60 * 20
    assert counters.prompt_tokens == counters.computed_prompt_tokens == 60 * 200
    assert sum(part.share for part in result.breakdown) == pytest.approx(1)
    assert sum(result.evidence_shares.values()) == pytest.approx(1)
    assert head.output_tokens_per_s == pytest.approx(60 * 20 / head.duration_s)
    assert head.itl_s.n == 60 * 19
    assert head.itl_s.mean == pytest.approx(head.tpot_s.mean)
    assert head.good_share == 1.0
    assert head.slo_met
    assert not head.saturated
    (bound,) = result.bounds
    assert bound.ours < bound.value
    assert result_of(scenario()).to_json() == result.to_json()


def test_overload_is_said_and_not_averaged_away():
    calm = result_of(scenario(arrivals={"rate": "5 /s", "requests": 300}))
    flooded = result_of(scenario(arrivals={"rate": "500 /s", "requests": 3000}))
    assert not calm.headline.saturated
    assert flooded.headline.saturated
    assert flooded.headline.slo_met is False
    assert any(told.startswith("saturated") for told in flooded.warnings)


def test_more_replicas_and_apart_prefill():
    two = result_of(scenario(serving={"replicas": 2, "routing": "least-loaded"}))
    assert [row.role for row in two.replicas] == ["serves", "serves"]
    apart = result_of(scenario(serving={"disaggregation": {"decode_replicas": 1}}))
    assert [row.role for row in apart.replicas] == ["prefills", "decodes"]
    assert apart.counters.ended == 60
    # a decoding replica never waits behind a prompt: its gaps hardly vary
    together = result_of(scenario())
    assert (
        apart.headline.itl_s.p99 / apart.headline.itl_s.p50 < together.headline.itl_s.p99 / together.headline.itl_s.p50
    )


def test_a_shared_prefix_is_not_computed_again():
    shared = result_of(scenario(serving={"shared_prefix": 100}))
    assert shared.counters.computed_prompt_tokens == 60 * (200 - 96)
    assert shared.headline.ttft_s.mean < result_of(scenario()).headline.ttft_s.mean


def test_distinct_experts_are_those_of_the_trace(tmp_path):
    # All requests of one trace use experts 0 and 1 only: a step reads two experts, however many requests it has.
    rows = [[[0, 1]] for _ in range(40)]
    few = trace_of(rows, num_experts=8, requests=np.repeat(np.arange(4), 10), prompt=5)
    rng = np.random.default_rng(0)
    rows = [[rng.permutation(8)[:2]] for _ in range(40)]
    many = trace_of(rows, num_experts=8, requests=np.repeat(np.arange(4), 10), prompt=5)
    tpot = {}
    for name, trace in (("few", few), ("many", many)):
        save_trace(trace, tmp_path / f"{name}.npz")
        wanted = {
            "model": "mixtral-8x7b",
            "trace": {"file": str(tmp_path / f"{name}.npz"), "stand_in": True},
            "hardware": "hgx-h100-8",
            "serving": {"parallel": {"tp": 2}, "max_num_seqs": 16},
            "arrivals": {"users": 16, "requests": 64, "prompt": 10, "output": 30},
        }
        tpot[name] = result_of(load_scenario(wanted)).headline.tpot_s.p50
    # 6 more experts of 176 MB, half of each on a GPU of 3.35 TB/s, in 32 layers: 5 ms at the full bandwidth
    assert tpot["many"] - tpot["few"] == pytest.approx(6 * 3 * 4096 * 14336 * 2 / 2 / 3.35e12 * 32, rel=0.5)


def test_faults_are_told_together():
    wrong = {
        **CHAT,
        "model": "qwen3-30b",
        "hardware": {"node": "hgx-h101-8"},
        "arrivals": {"file": "absent.csv"},
        "serving": {"disaggregation": {"decode_replicas": 1, "network": "ib"}},
    }
    with pytest.raises(ScenarioError) as error:
        build_serving(load_scenario(wrong))
    text = str(error.value)
    for told in ("model: ", "hgx-h100-8", "arrivals.file: ", "serving.disaggregation.network"):
        assert told in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"serving": {"parallel": {"ep": 3}}}, "must divide tp"),
        ({"serving": {"parallel": {"tp": 3, "ep": 3}}}, "do not divide over 3 ranks"),
        ({"hardware": {"node": "server-t4"}}, "the weights don't fit on a GPU"),
        ({"hardware": {"node": "server-l40s"}, "serving": {"parallel": {"tp": 2}}}, "serving: {network: ib-ndr-400}"),
        ({"trace": {"synthetic": None}}, "its routing must come from somewhere"),
        ({"serving": {"network": "nvlink-9"}}, "nvlink-"),
    ],
)
def test_what_does_not_fit_together_is_told(changes, told):
    with pytest.raises(ScenarioError, match=told):
        build_serving(scenario(**changes))


def test_a_measured_vllm_run_is_predicted(shared_data, tmp_path):
    """Llama-3.1-8B on one RTX PRO 6000, vLLM 0.19; no constant was fitted to this run, or to any on this GPU."""
    tables = pytest.importorskip("pyarrow.parquet", reason="needs the extra tables")
    rows = tables.read_table(shared_data / "measured" / "serving_vllm_requests.parquet").to_pydict()
    order = np.argsort(rows["arrival_measured_s"])
    with (tmp_path / "requests.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "prompt_tokens", "output_tokens"])
        for place in order:
            writer.writerow([rows[name][place] for name in ("arrival_measured_s", "input_toks", "output_toks")])
    settings = {"max_num_seqs": 128, "max_num_batched_tokens": 2048}  # of the run
    wanted = {
        "model": "llama-3.1-8b",
        "hardware": "server-rtx-pro-6000",
        "serving": settings,
        "arrivals": {"file": str(tmp_path / "requests.csv")},
    }
    head = result_of(load_scenario(wanted)).headline
    ttft, tpot = (np.mean([value / 1e3 for value in rows[name]]) for name in ("ttft_ms", "tpot_ms"))
    span = max(rows["last_token_s"]) - min(rows["arrival_measured_s"])
    throughput = sum(rows["output_toks"]) / span
    print(f"TPOT {head.tpot_s.mean / tpot - 1:+.1%}, TTFT {head.ttft_s.mean / ttft - 1:+.1%}", end=", ")
    print(f"throughput {head.output_tokens_per_s / throughput - 1:+.1%}")
    assert head.tpot_s.mean == pytest.approx(tpot, rel=0.10)
    assert head.output_tokens_per_s == pytest.approx(throughput, rel=0.08)
    assert head.ttft_s.mean == pytest.approx(ttft, rel=0.25)
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    pairs = (("TPOT", head.tpot_s.mean / tpot), ("throughput", head.output_tokens_per_s / throughput))
    for name, ratio in (*pairs, ("TTFT", head.ttft_s.mean / ttft)):
        assert f"{name} {100 * (ratio - 1):+.1f} %" in readme
