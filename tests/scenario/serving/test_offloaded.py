"""Offloading runtimes under load: tables against the offloading engine itself, queues against arithmetic."""

import numpy as np
import pytest
from builders import trace_of

from moesim.errors import ScenarioError
from moesim.scenario import load_scenario
from moesim.scenario.run import result_of
from moesim.scenario.serving.build import build_serving
from moesim.traces import save_trace


@pytest.fixture
def scenario(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[rng.permutation(8)[:2] for _ in range(4)] for _ in range(160)]
    save_trace(trace_of(rows, num_experts=8, requests=np.repeat(np.arange(8), 20), prompt=8), tmp_path / "trace.npz")

    def wanted(**changes):
        base = {
            "model": "mixtral-8x7b",
            "trace": {"file": str(tmp_path / "trace.npz"), "stand_in": True},
            "hardware": "desktop-rtx4090-ddr5-64g-nvme4",
            "precision": {"experts": "int4", "dense": "int4"},
            "serving": {"engine": "offload", "max_num_seqs": 1},
            "arrivals": {"users": 1, "requests": 30, "prompt": 12, "output": 20},
        }
        for key, value in changes.items():
            base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
        return load_scenario(base)

    return wanted


@pytest.mark.parametrize("places", [1, 3])
def test_requests_back_to_back_take_what_the_offloading_engine_takes(scenario, places):
    file = scenario(serving={"max_num_seqs": places}, arrivals={"users": places, "requests": 60})
    built = build_serving(file)
    served = result_of(file).headline
    offloading = built.offloaded.result.headline
    assert served.busy_share == pytest.approx(1)
    assert served.tpot_s.mean == pytest.approx(offloading.tpot_s.mean, rel=0.1)
    assert served.output_tokens_per_s == pytest.approx(offloading.output_tokens_per_s, rel=0.1)


def test_one_place_is_a_queue_with_one_server(scenario):
    """All requests alike, so that each takes s seconds: M/D/1 at a load of 0.6 waits 0.6 s / (2 (1 - 0.6))."""
    service_s = result_of(scenario()).headline.latency_s.mean
    rate = f"{0.6 / service_s:.9g} /s"
    queued = result_of(scenario(arrivals={"users": None, "rate": rate, "requests": 20_000})).headline
    assert not queued.saturated
    assert queued.busy_share == pytest.approx(0.6, rel=0.05)
    assert queued.queue_s.mean == pytest.approx(0.6 * service_s / (2 * 0.4), rel=0.1)


def test_what_it_says_of_itself(scenario):
    result = result_of(scenario())
    assert result.offloads
    assert sum(part.share for part in result.breakdown) == pytest.approx(1)
    assert sum(result.evidence_shares.values()) == pytest.approx(1)
    assert any(told.startswith("offload: steps as the offloading engine took them") for told in result.warnings)
    assert result_of(scenario()).to_json() == result.to_json()


@pytest.mark.parametrize(
    ("serving", "told"),
    [
        ({"max_num_seqs": 256}, "decodes at most 16 requests at once"),
        ({"parallel": {"tp": 2}}, "runs on one GPU"),
        ({"disaggregation": {"decode_replicas": 1}}, "runs on one GPU"),
        ({"kv_tokens": 20}, "do not hold the longest request, of 32"),
        ({"kv_tokens": 10_000_000}, "leaves no room for experts"),
    ],
)
def test_what_cannot_be_is_told(scenario, serving, told):
    with pytest.raises(ScenarioError, match=told):
        build_serving(scenario(serving=serving))
