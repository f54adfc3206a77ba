"""The papers' comparisons: each loads and every system of it builds; some are run, on less work."""

import math
from pathlib import Path

import pytest

from moesim.scenario import load_scenario
from moesim.scenario.build import build
from moesim.scenario.parallel.run import run_parallel
from moesim.scenario.parallel.summary import summarise_parallel
from moesim.scenario.run import run_scenario
from moesim.studies.compare import load_comparison, points_of
from moesim.studies.points import overrides_of

FOLDER = Path(__file__).parents[2] / "scenarios" / "papers"
ON_CLUSTERS = ["deepep", "eplb", "exflow", "flashmoe", "lplb", "megablocks", "moetuner", "tutel"]
PAPERS = sorted({path.stem for path in FOLDER.glob("*.yaml")} - set(ON_CLUSTERS))
NAMED = {
    *("edgemoe", "pregated", "hobbit", "hybrimoe", "expertflow", "d2moe", "readme", "fiddler", "moe-infinity"),
    *("adapmoe", "ktransformers"),
}
#: Less work than the files ask for.
SMALL = ("workload.requests=1", "workload.max_prompt=4", "workload.max_output=3", "workload.warmup_requests=0")
#: The same for clusters, on the first trace and machine of a file.
SMALL_CLUSTER = ("parallel.batch.tokens_per_gpu=16", "parallel.batch.steps=1", "trace.synthetic.requests=300")


def systems(name):
    """(label, settings) of each system at the first cache size."""
    comparison, base = load_comparison(FOLDER / f"{name}.yaml")
    size = comparison.gpu_experts[0]
    return base, [(p.policy, overrides_of(p.settings)) for p in points_of(comparison) if p.gpu_experts == size]


def test_there_is_one_for_each_paper_that_was_named():
    assert set(PAPERS) == NAMED
    assert all((FOLDER / f"{name}.yaml").is_file() for name in ON_CLUSTERS)


@pytest.mark.parametrize("name", PAPERS)
def test_every_system_of_a_paper_builds_and_nothing_is_expected_yet(name):
    comparison, _ = load_comparison(FOLDER / f"{name}.yaml")
    assert comparison.expect == {}
    base, found = systems(name)
    assert len(found) >= 4
    for _, settings in found:
        built = build(load_scenario(base, [*settings, *SMALL]))
        assert built.trace.card.labels  # a stand-in or synthetic, and every output says so


@pytest.mark.parametrize(
    ("name", "system", "slower"),
    [
        ("edgemoe", "EdgeMoE", "IO-EXP (on demand)"),
        ("pregated", "Pre-gated", "MoE-Prefetch (SE-MoE)"),
        ("fiddler", "Fiddler", "DeepSpeed-MII (on demand)"),
    ],
)
def test_a_system_is_faster_than_its_baseline(name, system, slower):
    base, found = systems(name)
    rates = {}
    for label, settings in found:
        if label in (system, slower):
            result = run_scenario(load_scenario(base, [*settings, *SMALL])).result
            rates[label] = result.headline.decode_tokens_per_s
            assert math.isfinite(rates[label])
    assert rates[system] > rates[slower]


def on_first_machine(name):
    """Results of a paper's systems on its first trace and machine, on less work."""
    comparison, base = load_comparison(FOLDER / f"{name}.yaml")
    assert comparison.expect == {}
    points = points_of(comparison)
    captured = ("parallel.batch.tokens_per_gpu=256", "parallel.batch.steps=1")
    small = SMALL_CLUSTER if name != "moetuner" else captured
    found, known = {}, None
    for point in points:
        if (point.trace, point.machine) == (points[0].trace, points[0].machine):
            run = run_parallel(load_scenario(base, [*overrides_of(point.settings), *small]), known)
            assert run.busy_s + sum(run.waits_s.values()) == pytest.approx(float(run.step_s.sum()))
            found[point.policy] = summarise_parallel(run)
    return found


#: (system, one that it must not be slower than), even on little work.
FASTER = {
    "deepep": [("low-latency kernels", "NCCL, BF16")],
    "eplb": [("EPLB flat, 32 redundant", "contiguous")],
    "exflow": [("ExFlow (coherent, placed by affinity)", "DeepSpeed-MoE (returns each layer)")],
    "flashmoe": [("FlashMoE, if in 16 bits", "Megatron-TE"), ("FlashMoE, if in 16 bits", "FlashMoE, FP32")],
    "lplb": [("LPLB", "LPLB with its solver's time")],
    "megablocks": [("MegaBlocks (dropless)", "Tutel, nothing dropped (dynamic capacity)")],
    "moetuner": [("MoETuner that knew the tokens (bound)", "Megatron-LM (contiguous)")],
    "tutel": [("best number of chunks", "dynamic capacity"), ("best number of chunks", "two chunks")],
}


@pytest.mark.parametrize("name", ON_CLUSTERS)
def test_systems_of_a_paper_on_a_cluster_run(name):
    found = on_first_machine(name)
    assert len(found) >= 4
    for result in found.values():
        assert {"stand-in", "synthetic"} & {warning.split(":")[0] for warning in result.warnings}
    for system, slower in FASTER[name]:
        assert found[system].headline.step_s.mean <= found[slower].headline.step_s.mean * (1 + 1e-9)
