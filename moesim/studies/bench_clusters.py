"""How long one pass through DeepSeek-V3 on clusters takes to simulate: as GPUs, and as tokens grow."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moesim.studies.bench_rows import BenchRow

MODEL = "deepseek-v3, 58 x 256"
MIB_MUST = 2048.0


@dataclass(frozen=True)
class Size:
    """A cluster and a batch; ``must``: CPU seconds of the simulation alone."""

    nodes: int
    tokens_per_gpu: int = 128
    must: float | None = None

    @property
    def name(self) -> str:
        """GPUs and tokens."""
        return f"{8 * self.nodes} GPUs x {self.tokens_per_gpu} tokens"


AT_TOKENS, AT_NODES = 128, 8
#: GPUs grow at the same tokens of each, then tokens on 64 GPUs.
SIZES = (
    *(Size(nodes) for nodes in (1, 2, 4)),
    Size(8, must=1.0),
    *(Size(nodes) for nodes in (16, 32, 64)),
    Size(128, must=20.0),
    *(Size(8, tokens) for tokens in (32, 512, 1024)),
)


def clusters(rounds: int) -> Iterator[BenchRow]:
    """A row of CPU time for each size, and the memory of the largest; each size in a process of its own."""
    for size in SIZES:
        runs = [_child(size) for _ in range(rounds)]
        seconds = [run[0] for run in runs]
        targets = None if size.must is None else (size.must, None)
        yield BenchRow.of("clusters", MODEL, f"a pass of {size.name}", seconds, "CPU s", targets=targets)
        if size is max(SIZES, key=lambda each: each.nodes):
            mib = [run[1] for run in runs]
            yield BenchRow.of("clusters", MODEL, f"memory of {size.name}", mib, "MiB", targets=(MIB_MUST, None))


def measure(nodes: int, tokens_per_gpu: int) -> tuple[float, float]:
    """CPU seconds of a second run in this process (the first one imports), and its peak memory in MiB."""
    import time

    from moesim.scenario import load_scenario
    from moesim.scenario.parallel.parts import load_parallel_parts
    from moesim.scenario.parallel.run import run_parallel

    file = load_scenario(scenario(nodes, tokens_per_gpu))
    parts = load_parallel_parts(file)
    small = load_scenario(scenario(1, 32))
    run_parallel(small)
    begin = time.process_time()
    run_parallel(file, parts)
    return time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scenario(nodes: int, tokens_per_gpu: int) -> dict[str, object]:
    """One decode step with EPLB's copies, routing by chance with a skew."""
    gpus = 8 * nodes
    redundant = max(-256 % gpus, 64 if gpus <= 64 else 0, gpus - 256)
    return {
        "model": "deepseek-v3",
        "trace": {"file": "none", "synthetic": {"layers": 4, "requests": 8192, "prompt": 0, "output": 2, "skew": 0.5}},
        "hardware": {"cluster": "h800-x8", "nodes": nodes},
        "policies": {"placement": "eplb"},
        "precision": {"experts": "fp8", "dense": "fp8"},
        "workload": {"train_fraction": 0.25},
        "parallel": {
            "redundant_experts": redundant,
            "batch": {"tokens_per_gpu": tokens_per_gpu, "steps": 1, "context": 4096},
            "exchange": {"kind": "deepep-low-latency", "dispatch": "fp8"},
        },
    }


def _child(size: Size) -> tuple[float, float]:
    call = f"measure({size.nodes}, {size.tokens_per_gpu})"
    code = f"import json; from moesim.studies.bench_clusters import measure; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    seconds, mib = json.loads(done.stdout)
    return float(seconds), float(mib)


def curves(rows: Sequence[BenchRow]) -> dict[str, list[tuple[float, float]]]:
    """(size, seconds) over GPUs at the same tokens of each, and over tokens on the same GPUs, from the rows."""
    seconds = {row.what: row.value for row in rows if row.part == "clusters" and row.value is not None}
    timed = [(size, seconds[what]) for size in SIZES if (what := f"a pass of {size.name}") in seconds]
    gpus = sorted((8.0 * size.nodes, value) for size, value in timed if size.tokens_per_gpu == AT_TOKENS)
    tokens = sorted((float(size.tokens_per_gpu), value) for size, value in timed if size.nodes == AT_NODES)
    return {f"GPUs, {AT_TOKENS} tokens each": gpus, f"tokens of each of {8 * AT_NODES} GPUs": tokens}
