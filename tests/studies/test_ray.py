"""Sweeps on a real Ray: on this machine, and on two nodes of which one is killed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import trace_of

from moesim.traces import save_trace

pytest.importorskip("ray", reason="needs the extra ray")
HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[rng.permutation(8)[:2] for _ in range(2)] for _ in range(60)]
    save_trace(trace_of(rows, num_experts=8, requests=np.repeat(np.arange(6), 10), prompt=3), tmp_path / "trace.npz")
    base = {
        "model": "mixtral-8x7b",
        "trace": {"file": "trace.npz", "stand_in": True},
        "hardware": "desktop-rtx4090-ddr5-64g-nvme4",
        "precision": {"experts": "int4"},
        "memory": {"host_experts": "all"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    return tmp_path


def write_sweep(folder, values):
    sweep = {
        "scenario": "base.yaml",
        "grid": {"policies.caching": ["lru", "lfu", "nonesuch"], "workload.max_output": values},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def sweep_with(path, store, *options):
    arguments = ["sweep", str(path), "--out", str(store.parent / "out"), "--store", str(store), *options]
    return subprocess.run([sys.executable, "-m", "moesim", *arguments], capture_output=True, text=True, check=True)


def test_ray_finds_what_processes_find(folder):
    path = write_sweep(folder, [3, 5])
    on_ray = sweep_with(path, folder / "ray", "--executor", "ray", "--processes", "2")
    assert re.search(r"4 ran, 0 from the store, 2 failed", on_ray.stderr)
    here = sweep_with(path, folder / "here")
    assert here.stdout == on_ray.stdout
    names = sorted(file.name for file in (folder / "here").glob("*.json"))
    assert len(names) == 6
    for name in names:
        assert (folder / "here" / name).read_bytes() == (folder / "ray" / name).read_bytes()
    again = sweep_with(path, folder / "here", "--executor", "ray")
    assert "0 ran, 4 from the store, 2 failed" in again.stderr


def test_a_killed_node_costs_time_and_no_point(folder):
    path = write_sweep(folder, list(range(2, 10)))
    done = subprocess.run(
        [sys.executable, str(HERE / "ray_two_nodes.py"), str(path), str(folder / "stores")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(f"two nodes: {told['whole']['seconds']:.1f} s; one killed: {told['killed']['seconds']:.1f} s")
    for run in told.values():
        assert run["points"] == 24
        assert len(run["failed"]) == 8
        assert all("nonesuch" in message for message in run["failed"])
    assert told["killed"]["killed_at"]
    whole, killed = ({f.name: f.read_bytes() for f in (folder / "stores" / name).glob("*.json")} for name in told)
    assert whole == killed
