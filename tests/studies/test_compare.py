"""Comparisons: every combination once, nothing twice, and a ranking that knows when it knows nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from builders import trace_of

from moesim.errors import ScenarioError
from moesim.results.comparison import Cell, RunRow
from moesim.scenario import load_scenario
from moesim.studies import ranking
from moesim.studies.compare import compare, load_comparison, points_of
from moesim.studies.execution import Processes
from moesim.studies.store import ResultStore
from moesim.traces import save_trace

BASE = {
    "model": "mixtral-8x7b",
    "trace": {"file": "trace.npz", "stand_in": True},
    "hardware": "desktop-rtx4090-ddr5-64g-nvme4",
    "precision": {"experts": "int4"},
    "memory": {"host_experts": "all"},
}
COMPARISON = {
    "scenario": "base.yaml",
    "policies": {"lru": {"caching": "lru"}, "best": {"caching": "belady"}},
    "gpu_experts": ["2 GiB", "4 GiB"],
    "seeds": [0, 1],
}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[rng.permutation(8)[:2] for _ in range(2)] for _ in range(60)]
    save_trace(trace_of(rows, num_experts=8, requests=np.repeat(np.arange(6), 10), prompt=3), tmp_path / "trace.npz")
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(COMPARISON))
    return tmp_path


def run(folder):
    comparison, base = load_comparison(folder / "comparison.yaml")
    points = points_of(comparison)
    return comparison, points, compare(base, points, folder / "runs", executor=Processes(1))


def test_every_combination_runs_and_equal_ones_share_a_result(folder):
    comparison, points, runs = run(folder)
    assert len(points) == 2 * 2 * 2
    assert [one.point for one in runs] == points
    # the seed is part of a result, so nothing is shared here
    assert len(list((folder / "runs").glob("*.json"))) == 8
    result = ranking.rank(comparison, load_scenario(BASE).scenario, runs)
    assert result.base_scenario["model"] == BASE["model"]
    assert json.loads(result.to_json())["ranking"]
    for cell_rank in result.ranking:
        assert cell_rank.needs_future == (cell_rank.policy == "best")
    by_policy = {(row.cell.gpu_experts, row.cell.seed, row.policy): row for row in result.runs}
    for size in ("2 GiB", "4 GiB"):
        assert by_policy[size, 0, "best"].fetches <= by_policy[size, 0, "lru"].fetches
        assert by_policy[size, 0, "best"].fetches == by_policy[size, 0, "best"].fewest_fetches


def test_a_second_run_takes_finished_results_and_repairs_damaged_ones(folder, monkeypatch):
    _, _, first = run(folder)
    files = sorted((folder / "runs").glob("*.json"))
    times = {file.name: file.stat().st_mtime_ns for file in files}
    files[0].write_text(files[0].read_text()[:100])
    _, _, second = run(folder)
    assert [one.result for one in first] == [one.result for one in second]
    written = {file.name for file in files if file.stat().st_mtime_ns != times[file.name]}
    assert written == {files[0].name}
    assert ResultStore(folder / "runs").get("nothing") is None


def test_points_that_cannot_run_are_told_together_and_the_others_are_kept(folder):
    wrong = {**COMPARISON, "policies": {"lru": {"caching": "lru"}, "a": {"caching": "lruu"}, "b": {"prefetch": "no"}}}
    (folder / "comparison.yaml").write_text(yaml.safe_dump(wrong | {"seeds": [0], "gpu_experts": ["2 GiB"]}))
    with pytest.raises(ScenarioError) as error:
        run(folder)
    assert "lruu" in str(error.value)
    assert "'no'" in str(error.value)
    kept = [path.name for path in (folder / "runs").glob("*.json")]
    assert len([name for name in kept if name.endswith(".failed.json")]) == 2
    assert len(kept) == 3


def test_too_many_runs_are_refused(folder):
    (folder / "comparison.yaml").write_text(yaml.safe_dump(COMPARISON | {"seeds": list(range(20_000))}))
    with pytest.raises(ScenarioError, match="is the most"):
        load_comparison(folder / "comparison.yaml")


def row_of(policy, tpot_s, hit_rate=0.5, size="1 GiB", slots=10.0, speed=None, **changes):
    cell = Cell(trace="t", machine="m", gpu_experts=size, seed=0)
    fields = {
        "cell": cell,
        "policy": policy,
        "needs_future": False,
        "gpu_slots": slots,
        "decode_tokens_per_s": speed or 1 / np.mean(tpot_s),
        "output_tokens_per_s": 1.0,
        "hit_rate_per_lookup": hit_rate,
        "late_rate_per_lookup": 0.0,
        "fetched_bytes_per_decode_token": 1e6,
        "fetches": 100,
        "fewest_fetches": 50,
        "prefetch_wasted_bytes": 0,
        "bound_by": "PCIe",
        "bound_by_share": 0.5,
        "limited_by": "policy",
        "requests": list(range(len(tpot_s))),
        "tpot_s": list(tpot_s),
        "evidence_shares": {},
    }
    return RunRow(**(fields | changes))


def test_ranking_tells_a_clear_difference_from_noise():
    rng = np.random.default_rng(1)
    base = rng.uniform(0.9, 1.1, 40)
    noise = base * rng.uniform(0.9, 1.1, 40)
    rows = [row_of("fast", base), row_of("same", noise), row_of("slow", noise[::-1] * 1.2)]
    rank = {row.policy: row for row in ranking._ranking(rows)}
    best = min(("fast", "same"), key=lambda name: rank[name].mean_tpot_s)
    other = "same" if best == "fast" else "fast"
    assert rank[best].interval is None
    assert rank[other].distinguishable is False
    assert rank["slow"].distinguishable is True
    assert rank["slow"].slower_than_best == pytest.approx(1.2, rel=0.05)
    low, high = rank["slow"].interval
    assert low < rank["slow"].slower_than_best < high


def test_few_requests_are_not_resampled():
    rank = {row.policy: row for row in ranking._ranking([row_of("a", [1.0, 2.0]), row_of("b", [2.0, 3.0])])}
    assert rank["b"].interval is None
    assert rank["b"].distinguishable is None


def test_cliffs_and_paradoxes_are_named():
    sizes = [("1 GiB", 10.0, 10.0), ("2 GiB", 20.0, 15.0), ("3 GiB", 30.0, 60.0)]
    rows = [row_of("lru", [1.0], size=size, slots=slots, speed=speed) for size, slots, speed in sizes]
    (cliff,) = ranking._cliffs(rows)
    assert (cliff.smaller, cliff.larger, cliff.speedup) == ("2 GiB", "3 GiB", 4.0)
    late = row_of("eager", [1.2], hit_rate=0.9, late_rate_per_lookup=0.3)
    (odd,) = ranking._paradoxes([row_of("plain", [1.0], hit_rate=0.8), late])
    assert (odd.hits_more, odd.runs_faster) == ("eager", "plain")
    assert "came late" in odd.why


def test_what_is_not_brought_is_named_before_what_is_late():
    late = row_of("eager", [1.2], hit_rate=0.9, late_rate_per_lookup=0.3)
    on_cpu = row_of("hybrid", [1.0], hit_rate=0.5, cpu_rate_per_lookup=0.4)
    skips = row_of("skips", [1.0], hit_rate=0.5, output_changed_share=0.1)
    by_cpu, by_skipping = (next(ranking._paradoxes([late, other])).why for other in (on_cpu, skips))
    assert "CPU compute 40.0%" in by_cpu
    assert "changes 10.0%" in by_skipping


def test_what_is_extrapolated_is_said_once():
    told = [
        "extrapolated: 4.0% of the time is priced outside of what it was fitted to (a: int4; b: long).",
        "cold start: caches are empty.",
        "extrapolated: 12.5% of the time is priced outside of what it was fitted to (a: int4; c: wide).",
    ]
    runs = [SimpleNamespace(result=SimpleNamespace(warnings=warnings)) for warnings in (told[:2], told)]
    assert ranking._warnings(runs) == [
        "extrapolated: 4.0% to 12.5%, by run, of the time is priced outside of what it was fitted to "
        "(a: int4; b: long; c: wide).",
        told[1],
    ]
    assert ranking._warnings(runs[:1]) == told[:2]


def test_the_ceiling_is_the_rate_with_the_least_waiting():
    least = SimpleNamespace(unit="s of stall", ours=6.0, value=1.0)
    result = SimpleNamespace(
        bounds=[least],
        scenario={"workload": {"warmup_requests": 0}},
        counters=SimpleNamespace(output_tokens=50),
        headline=SimpleNamespace(duration_s=10.0),
    )
    assert ranking._ceiling(result) == 10.0  # 5 s less
    result.scenario["workload"]["warmup_requests"] = 1
    assert ranking._ceiling(result) is None
