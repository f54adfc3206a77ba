"""``moesim bench``: how fast the compiled replay is, as ratios to something else measured in the same run.

All figures are CPU time. Contenders take turns, so that what else the machine does hits all of them, and a ratio is
the median over the rounds of one contender's time to the other's.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.costs.node_times import Times
from moesim.costs.roofline import OpTime
from moesim.engine import simulate
from moesim.policies import api
from moesim.policies.api import CacheContext, Policy
from moesim.replay.compile import run as run_kernel
from moesim.replay.kernels.uses import Uses
from moesim.replay.lru_curve import empty_stack
from moesim.replay.packed import pack
from moesim.replay.stream import decode_parts, stream_counts
from moesim.replay.tape import record_tape, retimed
from moesim.replay.timed import replay_timed
from moesim.setup import Setup, TierSetup
from moesim.studies.bench_clusters import clusters
from moesim.studies.bench_memory import peak_bytes
from moesim.studies.bench_optima import optima
from moesim.studies.bench_rivals import Timing, c_lru_run, libcachesim_run, write_oracle_trace
from moesim.studies.bench_rows import BenchRow
from moesim.studies.bench_serving import serving, two_nodes
from moesim.studies.bench_streams import DS, MIX, Stream
from moesim.traces.steps import closed_loop
from moesim.traces.visits import next_use, visits_of

ROUNDS = 3
STREAMED = 480_000_000
#: Of the hits-only replay against libCacheSim's C loop: (must, aim) by policy, then by stream.
_QUEUES, _OTHERS = {"mix": (4.0, 6.0), "ds": (6.0, 9.0)}, {"mix": (3.0, 5.0), "ds": (3.0, 5.0)}
AGAINST_LIBCACHESIM = {
    **dict.fromkeys(("lru", "fifo", "belady"), _QUEUES),
    **dict.fromkeys(("lfu", "sieve", "s3fifo"), _OTHERS),
}
AGAINST_C = (0.6, 0.9)
ALL_SIZES = (5.0, 2.0)
AGAINST_SIMPY = {"lru": (250.0, 500.0), "lfu": (75.0, 200.0)}
STREAM_CPU_S, STREAM_MIB = (10.0, 6.0), 300.0


def bench(
    parts: Sequence[str], rounds: int = ROUNDS, progress: Callable[[str], None] = lambda _: None
) -> Iterator[BenchRow]:
    """Run parts of the benchmark, row by row.

    Args:
        parts: of ``PARTS``.
        rounds: how often each contender has its turn.
        progress: called with what is measured next.
    """
    for part in parts:
        progress(part)
        for row in PARTS[part](rounds):
            progress(f"{row.part}: {row.stream}, {row.what} done")
            yield row


def _replay(rounds: int) -> Iterator[BenchRow]:
    """Hits only, rule ``sequential``, against libCacheSim's C loop and a C LRU."""
    with tempfile.TemporaryDirectory() as folder:
        for stream in (MIX, DS):
            keys = stream.keys()
            following = next_use(keys)
            path = Path(folder) / f"{stream.name}.oracleGeneral"
            write_oracle_trace(path, keys, following)
            for name, targets in AGAINST_LIBCACHESIM.items():
                ours = _sequential_run(stream, api.load("caching", name), keys, following)
                theirs = libcachesim_run(path, name, stream.slots, len(keys))
                of_libcachesim = _Rival("libcachesim", theirs, targets[stream.name], "libcachesim is not installed")
                yield _against(stream, name, len(keys), ours, of_libcachesim, rounds)
                if name == "lru":
                    in_c = c_lru_run(Path(folder), keys, stream.num_keys, stream.slots)
                    ceiling = _Rival("C -O3", in_c, AGAINST_C, "no C compiler (cc or gcc) is on the PATH")
                    yield _against(stream, name, len(keys), ours, ceiling, rounds)
            path.unlink()


def _curve(rounds: int) -> Iterator[BenchRow]:
    """All LRU sizes at once, against one size."""
    for stream in (MIX, DS):
        keys = stream.keys()
        one = _sequential_run(stream, api.load("caching", "lru"), keys, keys)
        every = partial(_all_sizes, stream, keys)
        every()
        pairs = [(every(), one()) for _ in range(rounds)]
        yield BenchRow.of(
            "curve",
            stream.name,
            "lru, all sizes at once",
            [all_s / one_s for (all_s, _), (one_s, _) in pairs],
            "x the time",
            against="one size",
            rate=len(keys) / median(all_s for (all_s, _), _ in pairs),
            targets=ALL_SIZES,
            same_hits=pairs[0][0][1] == pairs[0][1][1],
        )


def _all_sizes(stream: Stream, keys: NDArray[np.int64]) -> Timing:
    """CPU seconds of LRU at all sizes, and its hits at the size of the benchmark."""
    histogram = np.zeros(stream.num_keys + 1, dtype=np.int64)
    begin = time.process_time()
    run_kernel(None, "use_distances", empty_stack(stream.num_keys), keys, histogram)
    return time.process_time() - begin, int(histogram[: stream.slots].sum())


def _timeline(rounds: int) -> Iterator[BenchRow]:
    """With a clock and prefetch, against the SimPy engine; few tokens there, since it is slow."""
    for stream, tokens, few in ((MIX, 80_000, 150), (DS, 11_000, 25)):
        for name, targets in AGAINST_SIMPY.items():
            for prefetch in ("none", "oracle"):
                long, short = (_setup(stream, count, name, prefetch) for count in (tokens, few))
                same = np.array_equal(replay_timed(short).step_end_s, simulate(short).step_end_s)
                pairs = [(_timed(partial(replay_timed, long)), _timed(partial(simulate, short))) for _ in range(rounds)]
                yield BenchRow.of(
                    "timeline",
                    stream.name,
                    f"{name}, prefetch {prefetch}",
                    [tokens / ours / (few / simpy) for ours, simpy in pairs],
                    "x",
                    against="SimPy engine",
                    rate=tokens * stream.per_token / median(ours for ours, _ in pairs),
                    targets=targets,
                    same_hits=same,
                    note="" if same else "times differ",
                )
            yield _tape_row(stream, tokens, name, rounds)


def _tape_row(stream: Stream, tokens: int, name: str, rounds: int) -> BenchRow:
    """A tape of decisions, timed again for another machine, against a run of its own."""
    setup = _setup(stream, tokens, name, "none")
    other = replace(setup, times=replace(setup.times, copy_s=setup.times.copy_s * 0.7))
    tape = record_tape(setup)
    same = np.array_equal(retimed(tape, other).stall, replay_timed(other).stall)
    pairs = [(_timed(partial(retimed, tape, other)), _timed(partial(replay_timed, other))) for _ in range(rounds)]
    return BenchRow.of(
        "timeline",
        stream.name,
        f"{name}, tape timed again",
        [whole_s / again_s for again_s, whole_s in pairs],
        "x",
        against="a run of its own",
        rate=tokens * stream.per_token / median(again_s for again_s, _ in pairs),
        same_hits=same,
        note="" if same else "times differ",
    )


def _stream(rounds: int) -> Iterator[BenchRow]:
    """480 million activations from a file, in a process of its own: an eighth of them, read eight times over."""
    tokens = STREAMED // 8 // DS.per_token
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experts"
        with path.open("wb") as file:
            for block in DS.blocks(tokens):
                file.write(block.astype(np.uint8).tobytes())
        _child(f"stream_file({str(path)!r}, times=1)")
        runs = [_child(f"stream_file({str(path)!r})") for _ in range(rounds)]
    activations, cpu_s, peaks = runs[0][3], [run[0] for run in runs], [run[1] / 2**20 for run in runs]
    what = f"lru, {activations / 1e6:.0f} M activations"
    yield BenchRow.of("stream", DS.name, what, cpu_s, "CPU s", rate=activations / median(cpu_s), targets=STREAM_CPU_S)
    note = "the most memory that the process held"
    yield BenchRow.of("stream", DS.name, what, peaks, "MiB", targets=(STREAM_MIB, None), note=note)


def stream_file(path: str, times: int = 8) -> tuple[float, int, int, int]:
    """CPU seconds, peak memory in bytes, hits and activations of LRU over a file of ``ds``, read some times over."""

    def blocks() -> Iterator[NDArray[np.uint8]]:
        tokens = 512
        for _ in range(times):
            with open(path, "rb") as file:
                while data := file.read(tokens * DS.per_token):
                    yield np.frombuffer(data, dtype=np.uint8).reshape(-1, DS.layers, DS.top_k)

    sizes = np.ones(DS.num_keys, dtype=np.int64)
    begin = time.process_time()
    counts = stream_counts(decode_parts(blocks()), DS.experts, sizes, api.load("caching", "lru"), DS.slots)
    cpu_s = time.process_time() - begin
    return cpu_s, peak_bytes(), int(counts.hits.sum()), int(counts.activations.sum())


def _startup(rounds: int) -> Iterator[BenchRow]:
    """CPU seconds from nothing to the first counts, with an empty cache folder and with the one that it leaves."""
    for name in ("lru", "lfu"):
        with tempfile.TemporaryDirectory() as folder:
            call = f"first_counts({name!r})"
            first_s = _child(call, MOESIM_CACHE_DIR=folder)
            compiled = _files(folder)
            later = sorted(_child(call, MOESIM_CACHE_DIR=folder) for _ in range(rounds))
            told = "compiles nothing" if _files(folder) == compiled else "COMPILES AGAIN"
        yield BenchRow.of("startup", "", f"{name}, first start", [first_s], "CPU s")
        yield BenchRow.of("startup", "", f"{name}, second start", later, "CPU s", note=told)
    imports = [_child("time.process_time()") for _ in range(rounds)]
    yield BenchRow.of("startup", "", "imports only", imports, "CPU s")


def _files(folder: str) -> dict[str, int]:
    """Every file of a cache folder, and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def first_counts(policy: str) -> float:
    """CPU seconds of this process once it has counted its first hits."""
    small = Stream("small", layers=2, experts=8, top_k=2, slots=4, tokens=100)
    keys = small.keys()
    _sequential_run(small, api.load("caching", policy), keys, next_use(keys))()
    return time.process_time()


def _child(call: str, **environment: str) -> Any:
    """The value of a call in a new process."""
    code = f"import time; from moesim.studies.bench import *; from moesim.studies import bench; print(repr({call}))"
    child = [sys.executable, "-c", code]
    done = subprocess.run(child, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True)
    return ast.literal_eval(done.stdout)


@dataclass(frozen=True)
class _Rival:
    """Whom we are measured against, with (must, aim); ``run`` is None where that is not here, for a reason."""

    name: str
    run: Callable[[], Timing] | None
    targets: tuple[float, float]
    missing: str


def _sequential_run(
    stream: Stream, policy: Policy, keys: NDArray[np.int64], following: NDArray[np.int64]
) -> Callable[[], Timing]:
    """CPU seconds and hits of the compiled replay; compiled or loaded here, outside of what is timed."""
    tokens = len(keys) // stream.per_token
    start = np.arange(0, len(keys) + 1, stream.top_k)
    notes = following.astype(np.float64) if policy.note == "next_use" else np.zeros(0)
    none, starts = np.zeros(0, dtype=np.int64), np.zeros(tokens, dtype=np.bool_)
    uses = Uses(stream.layers, starts, start, keys, notes, none, none, np.zeros(len(keys), dtype=np.bool_))
    context = CacheContext(np.ones(stream.num_keys, dtype=np.int64), stream.slots, stream.experts)
    run_kernel(policy, "sequential", pack(policy, [context]), uses, 0, 1)

    def run() -> Timing:
        caches = pack(policy, [context])
        begin = time.process_time()
        run_kernel(policy, "sequential", caches, uses, 0, tokens)
        return time.process_time() - begin, int(uses.hit.sum())

    return run


def _against(
    stream: Stream, policy: str, count: int, ours: Callable[[], Timing], rival: _Rival, rounds: int
) -> BenchRow:
    """One row: our rate, how many times the rival's, and whether the hits are the same."""
    own, others = [], []
    for _ in range(rounds):
        own.append(ours())
        if rival.run is not None:
            others.append(rival.run())
    return BenchRow.of(
        "replay",
        stream.name,
        policy,
        [rival_s / our_s for (our_s, _), (rival_s, _) in zip(own, others, strict=False)],
        "x",
        against=rival.name,
        rate=count / median(our_s for our_s, _ in own),
        targets=rival.targets,
        same_hits=own[0][1] == others[0][1] if others else None,
        note="" if others else rival.missing,
    )


def _timed(call: Callable[[], Any]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _setup(stream: Stream, tokens: int, policy: str, prefetch: str) -> Setup:
    """100 us before each router, 50 us an expert, 250 us a copy: the link is the bottleneck, as it is in practice."""
    trace = stream.trace(tokens)
    visits = visits_of(trace, closed_loop(trace, [0]))
    lookups, keys = len(visits.lookup_key), visits.num_keys
    proposer = api.load("prefetch", prefetch)
    return Setup(
        visits=visits,
        times=Times(
            before=_op(visits.num_visits, 100e-6),
            shared=_op(visits.num_visits, 0.0),
            expert=_op(lookups, 50e-6),
            after=_op(visits.steps.num_steps, 0.0),
            copy_s=np.full(keys, 250e-6),
            read_s=np.zeros(keys),
            cpu_s=np.zeros(lookups),
        ),
        sizes=np.ones(keys, dtype=np.int64),
        gpu=TierSetup(api.load("caching", policy), stream.slots),
        host=None,
        unified=False,
        rule="reserve",
        link="demand-first",
        candidates=proposer.module.candidates(proposer.params, visits, trace, np.random.default_rng(0)),
        on_miss=api.load("on_miss", "fetch"),
    )


def _op(count: int, seconds: float) -> OpTime:
    return OpTime(np.full(count, seconds), np.zeros(count), np.zeros(count))


#: In the order in which they are measured.
PARTS: dict[str, Callable[[int], Iterator[BenchRow]]] = {
    "replay": _replay,
    "timeline": _timeline,
    "stream": _stream,
    "curve": _curve,
    "startup": _startup,
    "optima": optima,
    "clusters": clusters,
    "serving": serving,
    "two-nodes": two_nodes,
}
