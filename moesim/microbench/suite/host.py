"""Benchmarks of the host program: they run without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.microbench.suite.bench import Bench, Case, Level, Sizing, Split
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

CPU_IMPLS = ("avx512_bf16", "avx2", "amx_bf16", "amx_int8", "avx512_bf16_int4", "avx2_int4")
#: Largest expert that the CPU benchmarks compute, and most tokens.
_CPU_TOKENS = 64
#: Requests in flight that fits see.
_FITTED_DEPTHS = (1, 4, 16, 64)


def _threads(sizing: Sizing) -> list[int]:
    """1, 2, 4, ... and all."""
    counts = [2**power for power in range(12) if 2**power < sizing.cpu_threads]
    return [*counts, sizing.cpu_threads]


def _ends(sizing: Sizing) -> list[int]:
    """One thread and all."""
    return sorted({1, sizing.cpu_threads})


def _dram_cases(level: Level, sizing: Sizing) -> list[Case]:
    threads = _threads(sizing) if level == "full" else _ends(sizing)
    sizes = [4 * MIB, 16 * MIB, 64 * MIB] if level == "full" else [16 * MIB]
    blocks = expert_bytes(60 * 10**6) if level == "full" else [9_437_184]
    cases: list[Case] = [
        {"op": op, "threads": n, "bytes": size} for op in ("read", "copy", "write") for n in threads for size in sizes
    ]
    return cases + [{"op": "blocks", "threads": n, "bytes": size} for n in _ends(sizing) for size in blocks]


def _split_dram(case: Case) -> Split:
    """Held out: blocks of real experts at random places, and thread counts between one and all (see ``_ends``)."""
    return "holdout" if case["op"] == "blocks" or int(case["threads"]) & (int(case["threads"]) - 1) else "fit"


def _cpu_expert_cases(level: Level, sizing: Sizing) -> list[Case]:
    shapes = [*FITTED_SHAPES[:2], *HELD_OUT_SHAPES, FITTED_SHAPES[2]]
    tokens = sorted(m for m in (*FITTED_TOKENS, *HELD_OUT_TOKENS) if m <= _CPU_TOKENS)
    if level == "quick":
        shapes, tokens = [FITTED_SHAPES[0], HELD_OUT_SHAPES[0]], [1, 8, 16]
    cases: list[Case] = []
    for threads in reversed(_ends(sizing) if level == "full" else [sizing.cpu_threads]):
        for impl in CPU_IMPLS:
            for hidden, inter in shapes if threads > 1 else shapes[:1]:
                cases += [
                    {"impl": impl, "hidden": hidden, "inter": inter, "tokens": m, "threads": threads} for m in tokens
                ]
    return cases


def split_expert(case: Case) -> Split:
    """Held out: shapes and numbers of tokens that are not on the fitted lists."""
    fitted = (case["hidden"], case["inter"]) in FITTED_SHAPES and case["tokens"] in FITTED_TOKENS
    return "fit" if fitted else "holdout"


def _file_cases(level: Level, sizing: Sizing) -> list[Case]:
    found: list[Case] = []
    for pattern in ("random", "sequential"):
        for size, depth in _file_points(level):
            if 2 * size * depth <= sizing.file_bytes:
                found.append({"api": "uring", "pattern": pattern, "bytes": size, "depth": depth})
    sizes = [*powers(4 * KIB, 16 * MIB), *expert_bytes(20 * 10**6)] if level == "full" else [4 * KIB, MIB, 6_291_456]
    for size in sizes:
        found += [{"api": "pread", "pattern": "random", "bytes": size, "depth": depth} for depth in _ends(sizing)]
    return found


def _file_points(level: Level) -> Iterator[tuple[int, int]]:
    """(bytes, depth): the fitted grid, depths between, and real experts."""
    if level == "quick":
        yield from ((size, depth) for size in (4 * KIB, 64 * KIB, MIB, 4 * MIB) for depth in (1, 4))
        yield from ((64 * KIB, 2), (6_291_456, 1), (9_437_184, 2))
        return
    yield from ((size, depth) for size in powers(4 * KIB, 16 * MIB) for depth in _FITTED_DEPTHS)
    yield from ((size, depth) for size in powers(4 * KIB, 4 * MIB) for depth in (2, 8, 32))
    yield from ((128 * KIB, depth) for depth in (1, 4, 16))
    yield from ((size, depth) for size in expert_bytes(60 * 10**6) for depth in (1, 2, 4))


def _split_file(case: Case) -> Split:
    """Held out: sizes of real experts, 128 KiB, and depths between the fitted ones. pread has two depths, both fitted:
    one thread, and as many as there are CPUs."""
    fitted_depth = case["api"] == "pread" or case["depth"] in _FITTED_DEPTHS
    return "fit" if case["bytes"] in POWERS_OF_4 and fitted_depth else "holdout"


def _mmap_cases(level: Level, sizing: Sizing) -> list[Case]:
    sizes = [*powers(256 * KIB, 64 * MIB), *expert_bytes(60 * 10**6)] if level == "full" else [MIB, 4 * MIB, 6_291_456]
    return [
        {"state": state, "advice": advice, "bytes": size}
        for state, advices in (
            ("cold", ("sequential", "normal", "populate", "random")),
            ("warm", ("normal", "populate")),
        )
        for advice in advices
        for size in sizes
        if 2 * size <= sizing.file_bytes and not (advice == "random" and size > 18 * 10**6)
    ]


def _stage_cases(level: Level, sizing: Sizing) -> list[Case]:
    sizes = [*powers(64 * KIB, 64 * MIB), *expert_bytes(100 * 10**6)] if level == "full" else [MIB, 16 * MIB, 9_437_184]
    return [
        {"via": via, "threads": threads, "bytes": size}
        for via in ("memcpy", "pread")
        for threads in _ends(sizing)
        for size in sizes
        if 2 * size <= sizing.file_bytes
    ]


def split_by_size(case: Case) -> Split:
    """Held out: sizes that are no power of four, which are those of real experts."""
    return "fit" if case["bytes"] in POWERS_OF_4 else "holdout"


BENCHES = (
    Bench(
        "dram",
        "host memory: read, write, copy and expert-sized blocks at random places, by threads",
        "memory bandwidth of the CPU's card; the CPU tier",
        _dram_cases,
        _split_dram,
        shares_memory=True,
    ),
    Bench(
        "cpu_expert",
        "one expert's feed-forward layer on the CPU, by tokens, threads and instruction set",
        "computing a missing expert on the CPU",
        _cpu_expert_cases,
        split_expert,
        shares_memory=True,
    ),
    Bench(
        "file",
        "reads past the page cache, by size and requests in flight (pread, io_uring)",
        "the flash tier",
        _file_cases,
        _split_file,
    ),
    Bench(
        "mmap",
        "faulting a mapped file in, cold and warm, by advice",
        "engines that map their weights",
        _mmap_cases,
        split_by_size,
    ),
    Bench(
        "stage",
        "page cache to a staging buffer: memcpy and pread, by threads",
        "the pageable path to the GPU",
        _stage_cases,
        split_by_size,
        shares_memory=True,
    ),
)
