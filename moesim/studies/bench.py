"""``moesim bench``: how fast the compiled replay is, as ratios to something else measured in the same run.

All figures are CPU time. Contenders take turns, so that what else the machine does hits all of them, and a ratio is
the median over the rounds of one contender's time to the other's.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from moesim.replay.stream import stream_counts
from moesim.replay.timed import replay_timed
from moesim.setup import Setup, TierSetup
from moesim.studies.bench_rivals import Timing, c_lru_run, libcachesim_run, write_oracle_trace
from moesim.studies.bench_streams import DS, MIX, Stream
from moesim.traces.steps import closed_loop
from moesim.traces.visits import next_use, visits_of

ROUNDS = 3
STREAMED = 480_000_000
Row = dict[str, Any]


def bench(parts: Sequence[str] = ("replay", "curve", "timeline", "stream", "startup")) -> dict[str, list[Row]]:
    """Run parts of the benchmark; rows of each. A ratio that can't be measured here is None."""
    return {part: list(PARTS[part]()) for part in parts}


def _replay() -> Iterator[Row]:
    """Hits only, rule ``sequential``, against libCacheSim's C loop and a C LRU."""
    with tempfile.TemporaryDirectory() as folder:
        for stream in (MIX, DS):
            keys = stream.keys()
            following = next_use(keys)
            path = Path(folder) / f"{stream.name}.oracleGeneral"
            write_oracle_trace(path, keys, following)
            for name in ("lru", "fifo", "belady", "lfu", "sieve", "s3fifo"):
                ours = _sequential_run(stream, api.load("caching", name), keys, following)
                theirs = libcachesim_run(path, name, stream.slots, len(keys))
                yield _against(stream, name, "libcachesim", len(keys), ours, theirs)
                if name == "lru":
                    ceiling = c_lru_run(Path(folder), keys, stream.num_keys, stream.slots)
                    yield _against(stream, name, "C -O3", len(keys), ours, ceiling)
            path.unlink()


def _curve() -> Iterator[Row]:
    """All LRU sizes at once, against one size."""
    for stream in (MIX, DS):
        keys = stream.keys()
        one = _sequential_run(stream, api.load("caching", "lru"), keys, keys)

        def every(stream: Stream = stream, keys: NDArray[np.int64] = keys) -> Timing:
            histogram = np.zeros(stream.num_keys + 1, dtype=np.int64)
            begin = time.process_time()
            run_kernel(None, "use_distances", empty_stack(stream.num_keys), keys, histogram)
            return time.process_time() - begin, int(histogram[: stream.slots].sum())

        yield _against(stream, "lru", "one size", len(keys), every, one)


def _timeline() -> Iterator[Row]:
    """With a clock and prefetch, against the SimPy engine; few tokens there, since it is slow."""
    for stream, tokens, few in ((MIX, 80_000, 150), (DS, 11_000, 25)):
        for name in ("lru", "lfu"):
            for prefetch in ("none", "oracle"):
                long, short = (_setup(stream, count, name, prefetch) for count in (tokens, few))
                replay_timed(short)
                rows = [(_timed(partial(replay_timed, long)), _timed(partial(simulate, short))) for _ in range(ROUNDS)]
                rates = [(tokens * stream.per_token / ours, few * stream.per_token / simpy) for ours, simpy in rows]
                yield {
                    "stream": stream.name,
                    "policy": name,
                    "prefetch": prefetch,
                    "against": "SimPy engine",
                    "activations_per_cpu_s": median(ours for ours, _ in rates),
                    "ratio": median(ours / simpy for ours, simpy in rates),
                }


def _stream() -> Iterator[Row]:
    """480 million activations from a file, in a process of its own: an eighth of them, read eight times over."""
    tokens = STREAMED // 8 // DS.per_token
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experts"
        with path.open("wb") as file:
            for block in DS.blocks(tokens):
                file.write(block.astype(np.uint8).tobytes())
        _child(f"stream_file({str(path)!r})")
        cpu_s, peak_bytes, hits, activations = eval(_child(f"stream_file({str(path)!r})"))
    yield {
        "stream": DS.name,
        "policy": "lru",
        "activations": activations,
        "hits": hits,
        "cpu_s": cpu_s,
        "peak_bytes": peak_bytes,
    }


def stream_file(path: str) -> tuple[float, int, int, int]:
    """CPU seconds, peak memory in bytes, hits and activations of LRU over a file of ``ds``, read eight times."""

    def blocks() -> Iterator[NDArray[np.uint8]]:
        tokens = 512
        for _ in range(8):
            with open(path, "rb") as file:
                while data := file.read(tokens * DS.per_token):
                    yield np.frombuffer(data, dtype=np.uint8).reshape(-1, DS.layers, DS.top_k)

    sizes = np.ones(DS.num_keys, dtype=np.int64)
    begin = time.process_time()
    counts = stream_counts(blocks(), DS.experts, sizes, api.load("caching", "lru"), DS.slots)
    cpu_s = time.process_time() - begin
    return cpu_s, _peak_bytes(), int(counts.hits.sum()), int(counts.activations.sum())


def _peak_bytes() -> int:
    """The most memory that this process held. Linux's ru_maxrss would include the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _startup() -> Iterator[Row]:
    """CPU seconds from nothing to the first counts, with an empty cache folder and with the one that it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lru", "lfu"):
            for start in ("first", "second"):
                cpu_s = eval(_child(f"first_counts({name!r})", MOESIM_CACHE_DIR=folder))
                yield {"policy": name, "start": start, "cpu_s": cpu_s}
    yield {"policy": None, "start": "imports only", "cpu_s": eval(_child("time.process_time()"))}


def first_counts(policy: str) -> float:
    """CPU seconds of this process once it has counted its first hits."""
    small = Stream("small", layers=2, experts=8, top_k=2, slots=4, tokens=100)
    keys = small.keys()
    _sequential_run(small, api.load("caching", policy), keys, next_use(keys))()
    return time.process_time()


def _child(call: str, **environment: str) -> str:
    """The value of a call in a new process, as text."""
    code = f"import time; from moesim.studies.bench import *; from moesim.studies import bench; print(repr({call}))"
    child = [sys.executable, "-c", code]
    return subprocess.run(child, env=os.environ | environment, check=True, capture_output=True, text=True).stdout


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
    stream: Stream, policy: str, rival: str, count: int, ours: Callable[[], Timing], theirs: Callable[[], Timing] | None
) -> Row:
    """One row: our rate, how many times the rival's, and whether the hits are the same."""
    rounds = [(ours(), theirs() if theirs else (np.nan, -1)) for _ in range(ROUNDS)]
    ratios = sorted(rival_s / our_s for (our_s, _), (rival_s, _) in rounds)
    hits, rival_hits = rounds[0][0][1], rounds[0][1][1]
    return {
        "stream": stream.name,
        "policy": policy,
        "against": rival,
        "activations_per_cpu_s": count / median(our_s for (our_s, _), _ in rounds),
        "ratio": ratios[len(ratios) // 2] if theirs else None,
        "ratio_range": [ratios[0], ratios[-1]] if theirs else None,
        "hits": hits,
        "same_hits": hits == rival_hits if theirs else None,
    }


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


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "replay": _replay,
    "curve": _curve,
    "timeline": _timeline,
    "stream": _stream,
    "startup": _startup,
}
