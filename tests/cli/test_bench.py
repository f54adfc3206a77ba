"""``moesim bench`` on the command line."""

import json

import pytest

from moesim.studies import bench
from moesim.studies.bench_rows import BenchRow


@pytest.fixture
def one_row(monkeypatch):
    """One part that has been measured already."""
    row = BenchRow.of("curve", "mix", "lru", [1.5], "x the time", targets=(5.0, 2.0), same_hits=True)
    monkeypatch.setattr(bench, "PARTS", {"curve": lambda _: iter([row]), "replay": lambda _: iter([])})


def test_it_prints_and_writes(moesim, one_row):
    code, out, _ = moesim("bench", "--out", "made")
    assert code == 0
    assert "aim reached" in out
    assert {"made/bench.json", "made/bench.md"} <= moesim.files()
    code, out, _ = moesim("bench", "curve", "--json")
    assert json.loads(out)["rows"][0]["value"] == 1.5
    assert code == 0


def test_an_unknown_part_is_refused(moesim, one_row):
    assert "did you mean 'replay'?" in moesim.refused("bench", "replai")
    assert "is a file, not a folder" in moesim.refused("bench", "curve", "--out", "scenario.yaml")
