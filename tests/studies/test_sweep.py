"""Sweeps: every point once, whatever is killed, and failures beside successes."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import trace_of

from moesim.errors import ScenarioError
from moesim.results.sweep import one_type
from moesim.studies.execution import Lost, Processes
from moesim.studies.points import Task, run_task
from moesim.studies.sweep import Range, Sweep, load_sweep, points_of, run_sweep
from moesim.traces import save_trace

BASE = {
    "model": "mixtral-8x7b",
    "trace": {"file": "trace.npz", "stand_in": True},
    "hardware": "desktop-rtx4090-ddr5-64g-nvme4",
    "precision": {"experts": "int4"},
    "memory": {"host_experts": "all"},
}
SWEEP = {
    "scenario": "base.yaml",
    "grid": {"memory.gpu_experts": ["2 GiB", "4 GiB"], "policies.caching": ["lru", "lfu", "no-such-policy"]},
    "random": {"hardware.override.link.bandwidth": {"low": "10 GB/s", "high": "50 GB/s"}},
    "samples": 2,
}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[rng.permutation(8)[:2] for _ in range(2)] for _ in range(60)]
    save_trace(trace_of(rows, num_experts=8, requests=np.repeat(np.arange(6), 10), prompt=3), tmp_path / "trace.npz")
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    return tmp_path


def test_failures_stand_beside_successes_and_nothing_runs_twice(folder):
    sweep, base = load_sweep(folder / "sweep.yaml")
    seen = []
    first = run_sweep(sweep, base, folder / "runs", Processes(1), progress=seen.append)
    assert [row.settings for row in first.rows] == points_of(sweep)
    assert len(first.rows) == 2 * 3 * 2
    for row in first.rows:
        failed = row.settings["policies.caching"] == "no-such-policy"
        assert row.status == ("failed" if failed else "ok")
        assert ("no-such-policy" in row.message) == failed
    assert (seen[-1].done, seen[-1].ran, seen[-1].failed, seen[-1].remaining_s) == (12, 8, 4, 0.0)
    assert [now.done for now in seen] == list(range(1, 13))
    again = run_sweep(sweep, base, folder / "runs", Processes(1), progress=seen.append)
    assert again == first
    assert (seen[-1].ran, seen[-1].found, seen[-1].failed) == (0, 8, 4)
    table = list(csv.DictReader(io.StringIO(first.to_csv())))
    assert [row["memory.gpu_experts"] for row in table] == [row.settings["memory.gpu_experts"] for row in first.rows]
    rates = [float(row["output_tokens_per_s"]) for row in table if row["status"] == "ok"]
    assert rates == [row.figures["output_tokens_per_s"] for row in first.rows if row.status == "ok"]


def test_the_key_holds_all_that_decides_and_nothing_else(folder):
    def key(**settings):
        return run_task(Task(folder / "base.yaml", tuple(settings.items()), folder / "runs")).key

    plain = key()
    assert plain == key(seed=0)  # a default, written out
    assert key(seed=1) != plain
    trace = (folder / "trace.npz").read_bytes()
    rng = np.random.default_rng(1)
    rows = [[rng.permutation(8)[:2] for _ in range(2)] for _ in range(60)]
    save_trace(trace_of(rows, num_experts=8, requests=np.repeat(np.arange(6), 10), prompt=3), folder / "trace.npz")
    assert key() != plain
    (folder / "trace.npz").write_bytes(trace)
    assert key() == plain


def command(folder, *extra):
    arguments = ["sweep", str(folder / "sweep.yaml"), "--out", str(folder / "out"), *extra]
    return [sys.executable, "-m", "moesim", *arguments]


def whole_results(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "out" / "runs").glob("[0-9a-f]*[0-9a-f].json")}


def test_kill_9_loses_only_what_was_running(folder):
    sweep = {**SWEEP, "grid": {"workload.max_output": [3, 4, 5, 6], "policies.caching": ["lru", "lfu"]}, "samples": 1}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    running = subprocess.Popen(command(folder, "--processes", "2"), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(before := whole_results(folder)) < 2:
        assert running.poll() is None, "the sweep was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    done = subprocess.run(command(folder, "--processes", "1"), capture_output=True, text=True, check=True)
    ran, found, failed = map(int, re.search(r"(\d+) ran, (\d+) from the store, (\d+) failed", done.stderr).groups())
    assert ran + found == 8
    assert found >= len(before)
    assert failed == 0
    after = whole_results(folder)
    assert len(after) == 8
    assert {path: after[path] for path in before} == before  # not one was written again
    fresh = subprocess.run([*command(folder), "--store", str(folder / "fresh")], capture_output=True, check=True)
    assert fresh.stdout.decode() == done.stdout
    assert {path.name: path.read_bytes() for path in after} == {
        path.name: path.read_bytes() for path in (folder / "fresh").glob("*.json")
    }


def test_two_sweeps_share_a_store_and_run_each_point_once(folder):
    sweep = {**SWEEP, "grid": {"workload.max_output": [3, 4, 5, 6]}, "samples": 2}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    both = [
        subprocess.Popen(command(folder, "--processes", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    counts = [re.search(r"(\d+) ran, (\d+) from the store, 0 failed", told).groups() for _, told in ended]
    assert sum(int(ran) for ran, _ in counts) == 8
    assert all(int(ran) + int(found) == 8 for ran, found in counts)
    assert ended[0][0] == ended[1][0]


def fragile(item):
    if item == 3:
        os._exit(9)
    if item == 5:
        raise KeyError("five")
    return item * item


def test_a_process_that_dies_takes_only_its_own_item_with_it():
    ended = dict(Processes(2).outcomes(fragile, list(range(8))))
    assert isinstance(ended.pop(3), Lost)
    assert ended.pop(5) == Lost("KeyError: 'five'")
    assert ended == {item: item * item for item in (0, 1, 2, 4, 6, 7)}


def test_draws_keep_their_range_and_their_stream():
    random = {
        "a": Range(low="10 GB/s", high="40 GB/s", log=True),
        "b": Range(low=1, high=4, integer=True),
        "c": Range(choices=["x", "y"]),
    }
    points = points_of(Sweep(scenario="s", random=random, samples=400, seed=3))
    rates = [float(point["a"].removesuffix(" GB/s")) for point in points]
    assert 10 <= min(rates) < 10.5 < 39 < max(rates) <= 40
    assert np.median(rates) == pytest.approx(20, rel=0.1)  # the geometric mean
    assert {point["b"] for point in points} == {1, 2, 3, 4}
    assert {point["c"] for point in points} == {"x", "y"}
    fewer = points_of(Sweep(scenario="s", random={"c": random["c"]}, samples=400, seed=3))
    assert [point["c"] for point in fewer] == [point["c"] for point in points]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"grid": {}, "random": {}}, "varies nothing"),
        ({"random": {"seed": {"low": 1}}}, "needs either choices, or low and high"),
        ({"random": {"seed": {"low": "1 GB/s", "high": "2 MB/s"}}}, "must have one unit"),
        ({"random": {"seed": {"low": 2, "high": 1}}}, "low < high"),
        ({"random": {"policies.caching": {"choices": ["lru"]}}}, "stands both in grid and in random"),
        ({"grid": {"seed": list(range(1000)), "workload.batch": list(range(1001))}, "random": {}}, "is the most"),
    ],
)
def test_a_wrong_sweep_is_refused_with_its_reason(folder, wrong, told):
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | wrong))
    with pytest.raises(ScenarioError, match=re.escape(told)):
        load_sweep(folder / "sweep.yaml")


def test_columns_have_one_type():
    assert one_type([1, 2.5, None]) == [1.0, 2.5, None]
    assert one_type(["auto", 2]) == ["auto", "2"]
    assert one_type([True, None]) == [True, None]


def test_the_shipped_sweep_is_sound():
    for path in Path(__file__).parents[2].joinpath("scenarios", "sweeps").glob("*.yaml"):
        sweep, base = load_sweep(path)
        assert base.is_file()
        assert points_of(sweep)
