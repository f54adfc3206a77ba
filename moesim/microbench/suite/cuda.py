"""Benchmarks of the CUDA program. Each says how its cases' names are meant; the sources under ``src/cuda`` say how."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from moesim.microbench.suite.bench import Bench, Case, Level, Sizing, Split
from moesim.microbench.suite.host import split_by_size, split_expert
from moesim.microbench.suite.sizes import (
    FITTED_SHAPES,
    FITTED_TOKENS,
    HELD_OUT_SHAPES,
    HELD_OUT_TOKENS,
    KIB,
    MIB,
    POWERS_OF_4,
    expert_bytes,
    powers,
)

_URGENT = 9_437_184
_LARGE = 352_321_536
_GROUPED = {"hidden": 2048, "inter": 768}


def _copy_cases(level: Level, _: Sizing) -> list[Case]:
    """``segments``: one expert's bytes in so many copies of equal size."""
    sizes = [*POWERS_OF_4, *expert_bytes(2 * 10**9)] if level == "full" else [4 * KIB, MIB, 64 * MIB, _URGENT]
    cases: list[Case] = [
        {"dir": direction, "bytes": size, "segments": 1} for direction in ("h2d", "d2h") for size in sizes
    ]
    for size in [*powers(MIB, 64 * MIB), *expert_bytes(60 * 10**6)] if level == "full" else [16 * MIB, _URGENT]:
        cases += [{"dir": "h2d", "bytes": size, "segments": segments} for segments in (64, 3, 16)]
    return cases


def _split_copy(case: Case) -> Split:
    """Held out: sizes of real experts, and three and sixteen segments."""
    return "fit" if case["bytes"] in POWERS_OF_4 and case["segments"] in (1, 64) else "holdout"


def _host_kind_cases(level: Level, _: Sizing) -> list[Case]:
    """``op=copy``: host to device from memory of a kind; ``op=pin``: making such memory."""
    sizes = [*powers(64 * KIB, 256 * MIB), *expert_bytes(100 * 10**6)] if level == "full" else [4 * MIB, _URGENT]
    kinds = ("pageable", "registered", "write_combined", "registered_huge")
    cases: list[Case] = [{"op": "copy", "kind": kind, "bytes": size} for kind in kinds for size in sizes]
    pinned = [16 * MIB, 64 * MIB, 256 * MIB, 352_321_536] if level == "full" else [16 * MIB]
    return cases + [{"op": "pin", "kind": kind, "bytes": n} for kind in ("alloc", "register") for n in pinned]


def _bidir_cases(level: Level, _: Sizing) -> list[Case]:
    """``mode=both``: the other direction runs all the while; ``mode=split``: one copy shared out over streams."""
    sizes = [*powers(MIB, 256 * MIB), _URGENT, 67_108_864 - 4096, _LARGE] if level == "full" else [16 * MIB, _URGENT]
    both: list[Case] = [
        {"mode": "both", "dir": d, "bytes": size, "streams": 1} for d in ("h2d", "d2h") for size in sizes
    ]
    split: list[Case] = [
        {"mode": "split", "dir": "h2d", "bytes": size, "streams": n} for n in (1, 2, 4) for size in sizes
    ]
    return both + split


def _queue_cases(level: Level, _: Sizing) -> list[Case]:
    """An urgent copy behind ``ahead`` queued prefetches of ``prefetch`` bytes, cut into ``chunk`` bytes (0: whole).

    ``window``: chunks that may be in flight, the next being issued as one ends (0: all are queued at once);
    ``priority``: whether the urgent copy's stream has the higher one. ``ahead=0``: alone, two sizes, so that a fit can
    tell the link's rate from what waiting adds.
    """
    wholes = [(ahead, 0, 0) for ahead in (1, 4, 16)]
    cut = [(4, chunk, 0) for chunk in (4 * MIB, MIB, 16 * MIB)]
    windows = [(4, chunk, 2) for chunk in (4 * MIB, MIB, 16 * MIB)]
    points = [*wholes, *cut, *windows] if level == "full" else [(1, 0, 0), (4, 4 * MIB, 0), (4, 4 * MIB, 2)]
    whole, cut_up = (_LARGE, 88_080_384) if level == "full" else (50_331_648, 50_331_648)
    cases = [(_URGENT, 0, 0, 0), (4 * _URGENT, 0, 0, 0), *((_URGENT, *point) for point in points)]
    return [
        {
            "bytes": size,
            "ahead": n,
            "prefetch": cut_up if chunk else whole,  # so that a queue holds all chunks
            "chunk": chunk,
            "window": window,
            "priority": priority,
        }
        for priority in (0, 1)
        for size, n, chunk, window in cases
    ]


def _split_queue(case: Case) -> Split:
    """Held out: 16 prefetches ahead, and chunks of 1 and 16 MiB."""
    return "fit" if int(case["ahead"]) < 16 and case["chunk"] in (0, 4 * MIB) else "holdout"


def _overlap_cases(level: Level, _: Sizing) -> list[Case]:
    """``time=copy``: a copy while kernels run; ``time=kernel``: a kernel while copies run. ``none`` is alone."""
    sizes = [16 * MIB, 67_108_864] if level == "full" else [16 * MIB]
    cases: list[Case] = []
    for size in sizes:
        for copy in ("h2d", "d2h"):
            cases += [
                {"time": "copy", "kernel": kernel, "copy": copy, "bytes": size}
                for kernel in ("none", "hbm", "gemm", "tiny")
            ]
        cases += [
            {"time": "copy", "kernel": kernel, "copy": "both", "bytes": size}
            for kernel in ("none", "hbm", "gemm", "tiny")
        ]
    for kernel in ("hbm", "gemm", "tiny"):
        cases += [
            {"time": "kernel", "kernel": kernel, "copy": c, "bytes": 16 * MIB} for c in ("none", "h2d", "d2h", "both")
        ]
    return cases


def _split_overlap(case: Case) -> Split:
    """Held out: three at once, a kernel and copies both ways."""
    return "holdout" if case["copy"] == "both" and case["kernel"] != "none" else "fit"


def _zero_copy_cases(level: Level, _: Sizing) -> list[Case]:
    """``gemv`` reads weights from pinned host memory, ``sm`` copies them by a kernel, ``ce`` by the copy engine."""
    sizes = [*powers(MIB, 64 * MIB), *expert_bytes(100 * 10**6)] if level == "full" else [4 * MIB, _URGENT]
    return [{"op": op, "bytes": size} for op in ("gemv", "sm", "ce") for size in sizes]


def _launch_cases(level: Level, _: Sizing) -> list[Case]:
    """What the host pays to ask the GPU for something; ``nodes`` of a graph."""
    single = ("submit", "empty", "launch_sync", "event_record", "event_query", "stream_wait")
    nodes = (1, 8, 64, 256) if level == "full" else (1, 64)
    graphs = ("graph_launch", "graph_update")
    cases: list[Case] = [{"op": op, "nodes": 1} for op in single]
    return cases + [{"op": op, "nodes": n} for op in graphs for n in nodes]


def _split_launch(case: Case) -> Split:
    """Held out: graphs of eight nodes."""
    return "holdout" if case["nodes"] == 8 else "fit"


def _roundtrip_cases(level: Level, _: Sizing) -> list[Case]:
    """Logits, top-k, ids to the host, the host decides, copies ``bytes`` (0: none), a dependent kernel has run."""
    tokens = (1, 2, 4, 16, 48, 64, 256) if level == "full" else (1, 2, 16)
    return [{"tokens": m, "experts": 128, "topk": 8, "bytes": size} for size in (0, 4 * KIB, _URGENT) for m in tokens]


def _split_tokens(case: Case) -> Split:
    """Held out: numbers of tokens that are no power of four."""
    return "fit" if case["tokens"] in (*FITTED_TOKENS, 16384) else "holdout"


def _ffn_cases(level: Level, _: Sizing) -> list[Case]:
    """One expert: gate, up, SiLU, down. ``int4_separate`` unpacks to bf16 first; the others multiply as they unpack."""
    shapes = [*FITTED_SHAPES, *HELD_OUT_SHAPES] if level == "full" else [FITTED_SHAPES[0], HELD_OUT_SHAPES[0]]
    tokens = sorted([*FITTED_TOKENS, *HELD_OUT_TOKENS]) if level == "full" else [1, 4, 16, 64, 256, 2, 96]
    formats = ("bf16", "fp8", "int4", "int4_separate")
    return [
        {"impl": impl, "format": fmt, "hidden": hidden, "inter": inter, "tokens": m}
        for impl in ("own", "cublas")
        for fmt in (formats if impl == "own" else ("bf16",))
        for hidden, inter in shapes
        for m in tokens
    ]


def _grouped_cases(level: Level, _: Sizing) -> list[Case]:
    """``groups`` distinct experts in one launch, one launch each, or a graph of those; ``counts``: tokens of each."""
    groups = (1, 4, 16, 64, 128, 8, 32) if level == "full" else (4, 16)
    per_expert = (1, 8, 64) if level == "full" else (4,)
    spreads = ("uniform", "zipf0.6", "zipf1.4", "onehot", "zipf1.0")
    cases: list[Case] = []
    for count in groups:
        for mean in per_expert:
            for spread in spreads if count > 1 else spreads[:1]:
                counts = ",".join(map(str, token_counts(spread, count, mean * count)))
                modes = ("one", "many", "graph") if spread in ("uniform", "zipf1.0") else ("one",)
                cases += [
                    {"mode": mode, "spread": spread, "groups": count, "counts": counts, **_GROUPED} for mode in modes
                ]
    return cases


def token_counts(spread: str, groups: int, tokens: int) -> list[int]:
    """Tokens of each of ``groups`` experts: at least one each, the rest by the law, largest remainders first, shuffled.

    ``onehot``: one expert has all but one token of each other.
    """
    rest = tokens - groups
    if spread == "onehot":
        shares = np.zeros(groups)
        shares[0] = 1.0
    else:
        exponent = 0.0 if spread == "uniform" else float(spread.removeprefix("zipf"))
        shares = np.arange(1, groups + 1, dtype=np.float64) ** -exponent
    wanted = shares / shares.sum() * rest
    counts = np.floor(wanted).astype(np.int64)
    order = np.argsort(-(wanted - counts), kind="stable")
    counts[order[: rest - int(counts.sum())]] += 1
    random = np.random.Generator(np.random.PCG64(zlib.crc32(f"{spread}/{groups}/{tokens}".encode())))
    return [int(count) + 1 for count in random.permutation(counts)]


def _split_grouped(case: Case) -> Split:
    """Held out: the spread Zipf 1.0, and 8 and 32 experts."""
    return "holdout" if case["spread"] == "zipf1.0" or case["groups"] in (8, 32) else "fit"


def _hbm_cases(level: Level, _: Sizing) -> list[Case]:
    """``read``, ``write``, ``copy``: by working set; ``blocks``: experts at random places; ``again``: touched twice."""
    sizes = powers(MIB, 256 * MIB) if level == "full" else [16 * MIB, 256 * MIB]
    large = [2**30, 8 * 2**30] if level == "full" else []
    blocks = expert_bytes(360 * 10**6) if level == "full" else [_URGENT]
    cases: list[Case] = [{"op": op, "bytes": size} for op in ("read", "write", "copy") for size in [*sizes, *large]]
    cases += [{"op": "blocks", "bytes": size} for size in blocks]
    return cases + [{"op": "again", "bytes": size} for size in [*powers(MIB, 16 * MIB), *expert_bytes(50 * 10**6)]]


def _d2d_cases(level: Level, _: Sizing) -> list[Case]:
    """Device to device: copy engine, kernel; ``peer``, ``peer_latency``, ``all_to_all`` need two GPUs."""
    sizes = [*powers(MIB, 256 * MIB), *expert_bytes(360 * 10**6)] if level == "full" else [16 * MIB, _URGENT]
    ops = ("ce", "sm", "peer", "all_to_all")
    cases: list[Case] = [{"op": op, "bytes": size} for op in ops for size in sizes]
    return [*cases, {"op": "peer_latency", "bytes": 8}]


def _split_d2d(case: Case) -> Split:
    """As by size; a word's latency is one case, which nothing else could predict."""
    return "fit" if case["op"] == "peer_latency" else split_by_size(case)


def _router_cases(level: Level, _: Sizing) -> list[Case]:
    """``topk``: softmax or sigmoid and the k largest; ``histogram``: and scan; ``permute``, ``combine``: of tokens."""
    points = [(128, 8), (8, 2), (32, 4), (64, 6), (256, 8), (512, 10), (16, 1)] if level == "full" else [(128, 8)]
    tokens = (1, 4, 16, 64, 256, 1024, 4096, 16384, 48, 1536) if level == "full" else (1, 64, 1024, 48)
    ops = ("topk_softmax", "topk_sigmoid", "histogram", "permute", "combine")
    return [
        {"op": op, "experts": experts, "topk": k, "tokens": m, "hidden": 2048}
        for experts, k in points
        for op in (ops if experts == 128 else ops[:1])
        for m in tokens
    ]


def _dequant_cases(level: Level, _: Sizing) -> list[Case]:
    """Unpacking to bf16 in a pass of its own; ``bytes``: of the bf16 result."""
    sizes = [*powers(MIB, 256 * MIB), *expert_bytes(100 * 10**6)] if level == "full" else [16 * MIB, _URGENT]
    return [{"format": fmt, "bytes": size} for fmt in ("int4", "int8", "fp8", "mxfp4") for size in sizes]


def _alloc_cases(level: Level, _: Sizing) -> list[Case]:
    """A place for an expert: ``cudaMalloc`` and free, the stream-ordered pool, or an event on a slot that is reused."""
    sizes = [*powers(MIB, 256 * MIB), *expert_bytes(100 * 10**6)] if level == "full" else [16 * MIB, _URGENT]
    return [{"op": op, "bytes": size} for op in ("malloc", "malloc_async", "slot") for size in sizes]


def _file_gpu_cases(level: Level, sizing: Sizing) -> list[Case]:
    """A file to the GPU through pinned buffers of ``chunk`` bytes, ``depth`` of them; ``gds``: without the host."""
    chunks = (MIB, 4 * MIB, 16 * MIB, 64 * MIB) if level == "full" else (4 * MIB,)
    sizes = [64 * MIB, 256 * MIB, _LARGE] if level == "full" else [32 * MIB]
    return [
        {"via": via, "bytes": size, "chunk": chunk, "depth": depth}
        for via, depths in (("pinned", (1, 2, 4)), ("gds", (1,)))
        for size in sizes
        for chunk in chunks
        for depth in depths
        if chunk <= size <= sizing.file_bytes // 2
    ]


def _split_file_gpu(case: Case) -> Split:
    """Held out: the size of a real expert, and depth 4."""
    return "fit" if case["bytes"] in POWERS_OF_4 and case["depth"] != 4 else "holdout"


def _replay_cases(level: Level, _: Sizing) -> list[Case]:
    """A decode loop; see :mod:`moesim.microbench.decode_loop`. ``chunk``: bytes that a copy is cut into (0: whole)."""
    return [
        {"slots": slots, "prefetch": prefetch, "chunk": chunk, "hidden": 2048, "inter": 768, "steps": steps}
        for slots, prefetch, chunk, steps in _replay_points(level)
    ]


def _replay_points(level: Level) -> Iterator[tuple[int, int, int, int]]:
    if level == "quick":
        yield from ((96, 0, 0, 16), (192, 1, 0, 16))
        return
    for slots in (48, 96, 192, 384):
        yield from ((slots, prefetch, 0, 64) for prefetch in (0, 1))
    yield from ((slots, 1, 1 << 20, 64) for slots in (96, 192))
    yield from ((slots, 0, 1 << 20, 64) for slots in (96, 192))


def _held_out(_: Case) -> Split:
    return "holdout"


def _bench(
    name: str,
    cases: Callable[[Level, Sizing], Sequence[Case]],
    split: Callable[[Case], Split],
    measures: str,
    feeds: str,
) -> Bench:
    return Bench(name, measures, feeds, cases, split, "cuda")


BENCHES = (
    _bench(
        "copy",
        _copy_cases,
        _split_copy,
        "copies from and to pinned memory, by bytes and segments",
        "link latency, per-copy cost, bandwidth",
    ),
    _bench(
        "copy_host_kind",
        _host_kind_cases,
        split_by_size,
        "pageable, registered, write-combined and huge-page memory; pinning it",
        "staging, cold start",
    ),
    _bench(
        "copy_bidir",
        _bidir_cases,
        split_by_size,
        "one direction while the other runs; one copy over several streams",
        "interference of directions",
    ),
    _bench(
        "copy_queue",
        _queue_cases,
        _split_queue,
        "an urgent expert behind queued prefetches",
        "the link's discipline, chunks of prefetches",
    ),
    _bench(
        "overlap",
        _overlap_cases,
        _split_overlap,
        "copies beside kernels, and kernels beside copies",
        "contention factors",
    ),
    _bench(
        "zero_copy",
        _zero_copy_cases,
        split_by_size,
        "a kernel that reads weights from host memory",
        "computing from host memory",
    ),
    _bench(
        "launch",
        _launch_cases,
        _split_launch,
        "submitting kernels, events, waits and graphs",
        "overhead of each operation",
    ),
    _bench(
        "router_roundtrip",
        _roundtrip_cases,
        _split_tokens,
        "router result to the host, decision, copy, dependent kernel",
        "turnaround of a miss",
    ),
    _bench(
        "expert_ffn",
        _ffn_cases,
        split_expert,
        "one expert's feed-forward layer, by tokens and format",
        "time of an expert",
    ),
    _bench(
        "grouped",
        _grouped_cases,
        _split_grouped,
        "several experts with skewed loads: one launch, many, a graph",
        "grouped against sequential experts",
    ),
    _bench(
        "hbm",
        _hbm_cases,
        split_by_size,
        "GPU memory: read, write, copy, expert blocks, second touch",
        "GPU memory bandwidth, L2",
    ),
    _bench(
        "d2d",
        _d2d_cases,
        _split_d2d,
        "copies inside a GPU and between GPUs",
        "slot moves, links between GPUs",
    ),
    _bench(
        "router_permute",
        _router_cases,
        _split_tokens,
        "top-k, histogram, permutation, weighted sum",
        "router and dispatch",
    ),
    _bench(
        "dequant",
        _dequant_cases,
        split_by_size,
        "unpacking int4, int8, fp8, mxfp4 to bf16",
        "weights stored small, expanded on load",
    ),
    _bench(
        "alloc",
        _alloc_cases,
        split_by_size,
        "places for experts: malloc, pool, slot reuse",
        "cost of a cache slot",
    ),
    _bench(
        "file_to_gpu",
        _file_gpu_cases,
        _split_file_gpu,
        "file to pinned buffer to GPU, double buffered; GPUDirect",
        "the path from flash to the GPU",
    ),
    _bench(
        "replay",
        _replay_cases,
        _held_out,
        "a decode loop with an expert cache, real copies and kernels",
        "the simulator end to end",
    ),
)
