"""Comparisons on clusters: rows follow the runs, ratios the first system, and wrong systems are told by name."""

import json

import pytest
import yaml
from parallel_scenarios import scenario_of

from moesim.errors import ScenarioError
from moesim.report.kinds.cluster_comparison import render_systems
from moesim.results.cluster_comparison import ClusterComparisonResult
from moesim.scenario import load_scenario
from moesim.scenario.run import result_of
from moesim.studies.cluster_ranking import conclude
from moesim.studies.compare import checked, compare, load_comparison, points_of
from moesim.studies.execution import Processes
from moesim.studies.points import overrides_of

SYSTEMS = {
    "contiguous": {"placement": "contiguous"},
    "copies": {"placement": "eplb", "parallel.redundant_experts": 16},
    "tight": {"placement": "contiguous", "parallel.capacity": {"factor": 1.0}},
}


def written(folder, systems):
    data = {"question": "Which?", "scenario": scenario_of(skew=1.2), "policies": systems}
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    comparison, base = load_comparison(written(folder, SYSTEMS))
    points = points_of(comparison)
    assert checked(base, points) == 3
    runs = compare(base, points, folder / "runs", executor=Processes(1))
    return base, points, conclude(comparison, load_scenario(base).scenario, runs)


def test_every_row_is_its_systems_own_run(found):
    base, points, result = found
    assert [row.system for row in result.rows] == list(SYSTEMS)
    for point, row in zip(points, result.rows, strict=True):
        alone = result_of(load_scenario(base, overrides_of(point.settings)))
        assert row.step_s == alone.headline.step_s.mean
        assert row.speedup == alone.headline.tokens_per_s / result.rows[0].tokens_per_s
        assert sum(part.share for part in row.breakdown) == pytest.approx(1)
    first, copies, tight = result.rows
    assert first.speedup == 1
    assert copies.imbalance < first.imbalance
    assert copies.replica_bytes_per_gpu > first.replica_bytes_per_gpu == 0
    assert tight.dropped_share > first.dropped_share == 0


def test_it_is_saved_and_shown(found):
    _, _, result = found
    again = ClusterComparisonResult.model_validate(json.loads(result.to_json()))
    assert again == result
    page = render_systems(result)
    assert page == render_systems(again)
    for row in result.rows:
        assert row.system in page


def test_a_wrong_system_is_told_by_its_name(tmp_path):
    comparison, base = load_comparison(written(tmp_path, {"odd": {"parallel.redundant_experts": 3}}))
    with pytest.raises(ScenarioError, match="35 slots of a layer don't divide over 16 ranks"):
        checked(base, points_of(comparison))
