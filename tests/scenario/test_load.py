"""From files, mappings and settings to a checked scenario."""

import pytest

from moesim.errors import ScenarioError
from moesim.scenario import Scenario, load_scenario

SHORT = {"model": "m", "trace": "t.npz", "hardware": "h"}
FULL = """\
model: m
trace: {file: t.npz, stand_in: true}
hardware:
  node: h
  override: {link.bandwidth: 50 GB/s, gpu.memory_efficiency: 0.8}
policies:
  caching: {name: lru, size: 3}
seed: 010
"""


def faults(source, *overrides):
    with pytest.raises(ScenarioError) as raised:
        load_scenario(source, overrides)
    return [(fault.place, fault.message, fault.hint) for fault in raised.value.faults]


def test_short_forms_are_mappings():
    scenario = load_scenario(SHORT | {"policies": {"caching": "lfu"}}).scenario
    assert scenario.trace.file == "t.npz"
    assert scenario.hardware.node == "h"
    assert scenario.policies.caching.name == "lfu"
    assert scenario.policies.prefetch.name == "none"


def test_a_file_is_read_with_its_folder(tmp_path):
    (tmp_path / "s.yaml").write_text(FULL)
    file = load_scenario(tmp_path / "s.yaml")
    assert file.folder == tmp_path
    assert file.scenario.seed == 10
    assert file.scenario.policies.caching.params == {"size": 3}
    assert file.scenario.hardware.override == {"link.bandwidth": "50 GB/s", "gpu.memory_efficiency": 0.8}


def test_a_scenario_survives_its_own_dump(tmp_path):
    (tmp_path / "s.yaml").write_text(FULL)
    scenario = load_scenario(tmp_path / "s.yaml").scenario
    assert load_scenario(scenario).scenario == scenario
    assert load_scenario(scenario.model_dump(mode="json")).scenario == scenario


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode())
    assert isinstance(load_scenario(tmp_path / "s.yaml").scenario, Scenario)


def test_settings_replace_and_add():
    settings = [
        "trace.stand_in=true",
        "policies.caching.size=2",
        "hardware.override.link.bandwidth=1 GB/s",
        "seed=1",
        "seed=2",
    ]
    scenario = load_scenario(SHORT | {"policies": {"caching": "lfu"}}, settings).scenario
    assert (scenario.trace.file, scenario.trace.stand_in) == ("t.npz", True)
    assert scenario.policies.caching.params == {"size": 2}
    assert scenario.hardware.override == {"link.bandwidth": "1 GB/s"}
    assert scenario.seed == 2


def test_a_setting_that_replaces_a_mapping_hides_its_lines(tmp_path):
    (tmp_path / "s.yaml").write_text(FULL + "workload: {batch: 0}\n")
    place = str(tmp_path / "s.yaml")
    assert faults(tmp_path / "s.yaml")[0][0] == f"{place}:9: workload.batch"
    assert faults(tmp_path / "s.yaml", "workload={batch: -1}")[0][0] == "--set workload={batch: -1}: workload.batch"
    places = {fault[0] for fault in faults(tmp_path / "s.yaml", "workload.requests=0")}
    assert places == {f"{place}:9: workload.batch", "--set workload.requests=0: workload.requests"}


def test_a_mapping_has_no_lines_and_still_places():
    assert faults(SHORT | {"sed": 1}) == [("scenario: sed", "unknown key (got 1)", "did you mean 'seed'?")]
    assert faults({"trace": "t", "hardware": "h"}) == [("scenario: model", "is required", "add this key")]


def test_a_value_that_fits_none_of_several_types_is_one_fault():
    found = faults(SHORT | {"hardware": {"override": {"link.bandwidth": [1]}}})
    assert [place for place, _, _ in found] == ["scenario: hardware.override.link.bandwidth"]
    assert found[0][1].count("should be") == 2
