"""The papers' comparisons: each loads and every system of it builds; some are run, on less work."""

import math
from pathlib import Path

import pytest

from moesim.scenario import load_scenario
from moesim.scenario.build import build
from moesim.scenario.run import run_scenario
from moesim.studies.compare import load_comparison, points_of
from moesim.studies.points import overrides_of

FOLDER = Path(__file__).parents[2] / "scenarios" / "papers"
PAPERS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NAMED = {
    *("edgemoe", "pregated", "hobbit", "hybrimoe", "expertflow", "d2moe", "readme", "fiddler", "moe-infinity"),
    *("adapmoe", "ktransformers"),
}
#: Less work than the files ask for.
SMALL = ("workload.requests=1", "workload.max_prompt=4", "workload.max_output=3", "workload.warmup_requests=0")


def systems(name):
    """(label, settings) of each system at the first cache size."""
    comparison, base = load_comparison(FOLDER / f"{name}.yaml")
    size = comparison.gpu_experts[0]
    return base, [(p.policy, overrides_of(p.settings)) for p in points_of(comparison) if p.gpu_experts == size]


def test_there_is_one_for_each_paper_that_was_named():
    assert set(PAPERS) == NAMED


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
