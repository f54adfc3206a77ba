"""The host's program, for real: every benchmark runs on this machine, its results are right, and its file is whole."""

from __future__ import annotations

import getpass
import json
import platform
import re
import shutil

import pytest

from moesim.microbench import runner
from moesim.microbench.build import tree_sha256
from moesim.microbench.card import card_fields
from moesim.microbench.environment import cpu_threads
from moesim.microbench.fit import fit_rows
from moesim.microbench.schema import read_result
from moesim.microbench.suite import BENCHES
from moesim.microbench.suite.bench import Sizing

HOST = [bench for bench in BENCHES if bench.program == "host"]
SIZING = Sizing(cpu_threads(), 32 * 2**20)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A result of the whole suite, with few samples, and the folder that it ran in."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_EFFORT", {"quick": (5, 15)})
        patch.setattr(runner, "AGAIN", {"quick": 1})
        options = runner.Options("quick", BENCHES, folder, 300.0, seed=3, file_bytes=SIZING.file_bytes)
        return runner.run(options), folder


def test_every_benchmark_measures_or_says_why_not(measured):
    result, folder = measured
    assert list(folder.iterdir()) == []
    for bench in HOST:
        rows = [row for row in result.rows if row.bench == bench.name]
        skipped = sum(skip.cases for skip in result.skipped if skip.bench == bench.name)
        assert len(rows) + skipped == len(bench.cases("quick", SIZING))
        assert rows, [skip.reason for skip in result.skipped if skip.bench == bench.name]


def test_results_are_right_and_possible(measured):
    result, _ = measured
    for row in result.rows:
        assert row.checked, row
        assert "wrong" not in row.flags
        assert 0 < row.time_us.min <= row.time_us.p10 <= row.time_us.p50 <= row.time_us.p90 <= row.time_us.max
        assert row.derived["bytes_gbps"] < 2000
        assert row.derived.get("flops_tflops", 0) < 1000
        assert row.cpu_share is None or row.cpu_share <= 1.0001
        assert 0 <= row.values["others_busy_cpus"] < 2 * cpu_threads()
    experts = [row for row in result.rows if row.bench == "cpu_expert"]
    assert all(row.values["relative_error"] < 0.03 for row in experts)


def test_sixteen_times_the_bytes_take_longer(measured):
    by_case = {}
    for row in measured[0].rows:
        if row.bench in ("stage", "file", "mmap"):
            rest = tuple((key, value) for key, value in row.case.items() if key != "bytes")
            by_case.setdefault((row.bench, rest), {})[row.case["bytes"]] = row
    pairs = [(rows[size], rows[16 * size]) for rows in by_case.values() for size in rows if 16 * size in rows]
    assert pairs
    for small, large in pairs:
        assert large.time_us.p90 > small.time_us.p10, (small, large)


def test_the_file_is_read_back_and_names_nobody(measured, tmp_path):
    result, folder = measured
    path = tmp_path / "result.json"
    path.write_text(result.to_json())
    assert read_result(path) == result
    text = path.read_text()
    for private in (str(folder), str(tmp_path), "/home/", "/root/", "/tmp/"):
        assert private not in text, private
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text)
    assert getpass.getuser() not in json.loads(text)["run"]["argv"]
    assert result.source.tree_sha256["host"] == tree_sha256("host")


def test_a_card_follows_unless_all_was_noisy(measured):
    result, _ = measured
    fitted = fit_rows(result.rows, "test")
    if not fitted:
        pytest.skip("every row of this run was noisy or contended")
    fields = card_fields(result, "0" * 64, "here")
    assert [fit["bench"] for fit in fields["fits"]] == [fit.bench for fit in fitted]
    assert "gpu" not in fields
    assert "link" not in fields
    assert "measured without a GPU: this card says nothing of one" in fields["notes"]
