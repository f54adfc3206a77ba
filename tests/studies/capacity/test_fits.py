"""``fits``: what runs where, by arithmetic."""

import pytest

from moesim.hardware import build_node
from moesim.models import Precisions, get_precision, load_model, parameters
from moesim.studies.capacity.fits import fits


def ask(model, node, precision, context=4096):
    stored = get_precision(precision)
    return fits(load_model(model), Precisions(stored, stored), build_node(node), context)


def test_what_fits_is_resident_and_more_gpus_hold_more():
    found = ask("qwen3-30b-a3b", "hgx-h100-8", "bf16")
    assert found.verdict == "resident"
    by_gpus = {way.gpus: way for way in found.placements}
    assert sorted(by_gpus) == [1, 2, 4, 8]
    # 61 GB of weights in 80 GB: the rest is KV cache of 98,304 bytes a token (48 layers, 4 KV heads of 128, K and V)
    spec, memory = load_model("qwen3-30b-a3b"), build_node("hgx-h100-8").gpu.memory.value
    left = 0.95 * memory - 2 * parameters.total_params(spec) - 2**30
    assert by_gpus[1].kv_tokens == pytest.approx(left / (48 * 2 * 4 * 128 * 2), rel=1e-3)
    assert by_gpus[8].kv_tokens > 8 * by_gpus[1].kv_tokens
    assert [way.decode_tokens_per_s for way in found.placements] == sorted(
        (way.decode_tokens_per_s for way in found.placements), reverse=True
    )


def test_what_does_not_fit_is_offloaded_and_waits_for_links():
    found = ask("mixtral-8x7b", "desktop-rtx4090-ddr5-64g-nvme4", "int8")
    assert found.verdict == "offloaded"
    fetched = next(way for way in found.placements if "fetched" in way.name)
    assert fetched.decode_tokens_per_s < fetched.most
    slow = ask("mixtral-8x7b", "desktop-rtx3060-ddr4-32g-nvme3", "int8").placements
    assert max(way.decode_tokens_per_s for way in slow) < fetched.most


def test_what_runs_nowhere_says_why():
    found = ask("deepseek-v3", "server-t4", "fp8")
    assert (found.verdict, found.placements) == ("no", ())
    assert "don't fit" in found.why
    assert "can't hold the weights outside of routed experts" in found.why


def test_an_estimate_is_near_the_simulation(tmp_path):
    """Of evenly used experts without locality, an LRU cache and no prefetching: within a third."""
    import numpy as np
    from builders import trace_of

    from moesim.scenario import load_scenario
    from moesim.scenario.run import run_scenario
    from moesim.traces import save_trace

    rng = np.random.default_rng(0)
    rows = [[rng.permutation(8)[:2] for _ in range(32)] for _ in range(60)]
    save_trace(trace_of(rows, num_experts=8), tmp_path / "trace.npz")
    wanted = {
        "model": "mixtral-8x7b",
        "trace": {"file": str(tmp_path / "trace.npz"), "stand_in": True},
        "hardware": "desktop-rtx4090-ddr5-64g-nvme4",
        "precision": {"experts": "int8", "dense": "int8"},
        "memory": {"gpu_reserve": "1 GiB"},
    }
    simulated = run_scenario(load_scenario(wanted)).result.headline.decode_tokens_per_s
    fetched = ask("mixtral-8x7b", "desktop-rtx4090-ddr5-64g-nvme4", "int8", context=60).placements
    estimate = next(way for way in fetched if "fetched" in way.name).decode_tokens_per_s
    assert estimate == pytest.approx(simulated, rel=0.35)
