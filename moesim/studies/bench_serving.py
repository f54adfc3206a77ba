"""How many requests a CPU second serves, what a day of a million needs, and what a sweep loses when a node dies."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from moesim.replay.serving import serve
from moesim.scenario import load_scenario
from moesim.scenario.serving.build import build_serving
from moesim.scenario.serving.summary import run_serving
from moesim.studies.bench_memory import peak_bytes
from moesim.studies.bench_rows import BenchRow
from moesim.studies.execution import OnRay
from moesim.studies.sweep import load_sweep, points_of, run_sweep

REQUESTS, DAY_REQUESTS, DAY_S = 20_000, 1_000_000, 86_400.0
#: CPU seconds: (must, aim). 5,000 requests a CPU second, and twice that; a day at the same pace; MiB of its process.
SERVED_S, DAY_CPU_S, DAY_MIB = (4.0, 2.0), (200.0, 100.0), (400.0, 300.0)
#: A killed node is worth half of the machine from then on, and its running points.
KILLED = (2.5, 2.0)
CHAT = {
    "model": "qwen3-30b-a3b",
    "trace": {"file": "none", "synthetic": {"layers": 6, "requests": 32}},
    "hardware": "hgx-h100-8",
    "serving": {"max_num_batched_tokens": 8192},
}
#: Two policies at twelve lengths, on routing out of chance.
SWEEP = {
    "scenario": "base.yaml",
    "grid": {"policies.caching": ["lru", "lfu"], "workload.max_output": list(range(40, 52))},
}
OFFLOADED = {
    "model": "mixtral-8x7b",
    "trace": {"file": "none", "synthetic": {"requests": 8, "prompt": 32, "output": 64}},
    "hardware": "desktop-rtx4090-ddr5-64g-nvme4",
    "precision": {"experts": "int4"},
}


def serving(rounds: int) -> Iterator[BenchRow]:
    """One replica at 256 output tokens; a day of a million requests over two."""
    name = "qwen3-30b-a3b on H100"
    built = build_serving(_chat("4 /s", REQUESTS))
    serve(built.setup)  # compiled by now
    seconds = []
    for _ in range(rounds):
        begin = time.process_time()
        outcome = serve(built.setup)
        seconds.append(time.process_time() - begin)
    what = f"{REQUESTS:,} requests of 500 + 256 tokens, {built.error.mean:.2%} off the cost forms"
    note = f"{outcome.finished / min(seconds):,.0f} requests per CPU second at best"
    yield BenchRow.of("serving", name, what, seconds, "CPU s", targets=SERVED_S, note=note)
    cpu_s, peak, ended = _in_child("day()")
    what = f"a day of {ended:,} requests over two replicas"
    yield BenchRow.of("serving", name, what, [cpu_s], "CPU s", targets=DAY_CPU_S)
    yield BenchRow.of("serving", name, what, [peak / 2**20], "MiB", targets=DAY_MIB, note="all of the process")


def day() -> tuple[float, int, int]:
    """A day's run of this process: its CPU seconds, the most memory that it held, and how many requests it ended."""
    file = _chat(f"{DAY_REQUESTS / DAY_S:.6f} /s", DAY_REQUESTS, replicas=2)
    result = run_serving(build_serving(file))
    return time.process_time(), peak_bytes(), result.counters.ended


def _chat(rate: str, requests: int, replicas: int = 1) -> Any:
    arrivals = {"rate": rate, "requests": requests, "prompt": {"mean": 500, "cv": 1.0}, "output": 256}
    return load_scenario({**CHAT, "serving": {**CHAT["serving"], "replicas": replicas}, "arrivals": arrivals})  # type: ignore[dict-item]


def _in_child(call: str) -> Any:
    code = f"from moesim.studies.bench_serving import *; print(repr({call}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return ast.literal_eval(done.stdout)


def two_nodes(rounds: int) -> Iterator[BenchRow]:  # noqa: ARG001 - starting nodes takes long: once
    """A sweep on two Ray nodes of this machine, and again with one of them killed when a quarter is done."""
    what = "a node killed at a quarter"
    if find_spec("ray") is None:
        yield BenchRow.of("two-nodes", "24 points", what, [], "x the time", targets=KILLED, note="Ray is not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base.yaml").write_text(yaml.safe_dump(OFFLOADED))
        (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
        points = len(points_of(load_sweep(folder / "sweep.yaml")[0]))
        whole = timed_sweep(folder / "sweep.yaml", folder / "whole", None)
        killed = timed_sweep(folder / "sweep.yaml", folder / "killed", points // 4)
    lost = len(killed["failed"])
    told = f"{whole['seconds']:.1f} s and {killed['seconds']:.1f} s; killed after {killed['killed_at'][0]}; {lost} lost"
    ratio = [killed["seconds"] / whole["seconds"]]
    yield BenchRow.of("two-nodes", f"{points} points", what, ratio, "x the time", targets=KILLED, note=told)


def timed_sweep(path: Path, store: Path, kill_after: int | None) -> dict[str, Any]:
    """One sweep on two fresh nodes of one CPU each; after so many points, one node is killed."""
    ray, cluster_of = import_module("ray"), import_module("ray.cluster_utils").Cluster
    cluster = cluster_of(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    sweep, base = load_sweep(path)
    killed_at: list[int] = []

    def watch(now: Any) -> None:
        if kill_after is not None and now.done >= kill_after and not killed_at:
            cluster.remove_node(second, allow_graceful=False)
            killed_at.append(now.done)

    started = time.monotonic()
    result = run_sweep(sweep, base, store, OnRay(), progress=watch)
    seconds = time.monotonic() - started
    ray.shutdown()
    cluster.shutdown()
    failed = [row.message for row in result.rows if row.status == "failed"]
    return {"seconds": seconds, "points": len(result.rows), "failed": failed, "killed_at": killed_at}
