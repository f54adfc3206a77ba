"""How long optima take, and how far apart their value and bound are, at the sizes of real models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Answer
from moesim.optimal.caching.fewest import fewest
from moesim.optimal.caching.requests import Requests, singles
from moesim.optimal.placement.replicas import replicated
from moesim.optimal.placement.split import split_tokens
from moesim.optimal.prefetch.bracket import bracket
from moesim.optimal.prefetch.problem import TimedRequests
from moesim.optimal.tiers import Choices, allocate
from moesim.policies.placement_profile import PlacementProfile
from moesim.studies.bench_rows import BenchRow
from moesim.studies.bench_streams import DS, Stream

Floats = NDArray[np.float64]
T = TypeVar("T")
QWEN3 = Stream("qwen3", layers=48, experts=128, top_k=8, slots=1843, tokens=16)
#: Whose prefetching is bracketed, over so many tokens.
BRACKETED = (
    Stream("mixtral", layers=32, experts=8, top_k=2, slots=0, tokens=64),
    Stream("v2-lite", layers=26, experts=64, top_k=6, slots=0, tokens=32),
    QWEN3,
)
#: Seconds of a layer's fetches over its compute, and the share of experts that the GPU holds.
LINK_LOADS, CACHED = (1.5, 4.0, 10.0, 30.0), (0.1, 0.3, 0.5)
RANKS, COPIES = 32, 32
#: Seconds of an expert by tier (GPU, host, flash), and its error, by bit-width.
TIER_S, BITS = (0.0, 1.0, 8.0), (16, 8, 4, 2)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    fetches: int = 100_000
    compiled: int = 50_000_000
    layers: int = DS.layers
    experts: int = DS.experts


def optima(rounds: int, sizes: Sizes | None = None) -> Iterator[BenchRow]:
    """CPU seconds, and gaps where an answer may have one."""
    sizes = sizes or Sizes()
    yield from _belady(rounds, sizes)
    for stream in BRACKETED:
        yield from _brackets(rounds, stream)
    yield from _placements(rounds, sizes)
    yield from _tiers(sizes)


def _belady(rounds: int, sizes: Sizes) -> Iterator[BenchRow]:
    """The fewest fetches of a short stream, interpreted, and of a long one, compiled."""
    tokens = -(-sizes.fetches // QWEN3.per_token)
    short = _sets(QWEN3, tokens)
    runs = [_timed(lambda: fewest(short, QWEN3.slots)) for _ in range(rounds)]
    what = f"fewest fetches of {len(short.key):,} lookups"
    yield BenchRow.of("optima", QWEN3.name, what, runs, "CPU s", targets=(0.3, None))
    keys = DS.keys()
    long = singles(np.resize(keys, sizes.compiled), DS.num_keys)
    fewest(singles(keys[: sizes.compiled // 50], DS.num_keys), DS.slots)  # compiles, or loads what was compiled
    runs = [_timed(lambda: fewest(long, DS.slots)) for _ in range(rounds)]
    what, rate = f"fewest fetches of {sizes.compiled:,} activations", sizes.compiled / float(np.median(runs))
    yield BenchRow.of("optima", DS.name, what, runs, "CPU s", targets=(3.0, None), rate=rate)


def _brackets(rounds: int, stream: Stream) -> Iterator[BenchRow]:
    """The bracket on stall, over link speeds and cache sizes; the worst of them counts."""
    requests = _sets(stream, stream.tokens)
    seconds, gaps = [], []
    for load in LINK_LOADS:
        for share in CACHED:
            slots = max(int(share * stream.num_keys), requests.largest_set + 1)
            sets, fetch_s = requests.num_sets, np.full(requests.num_keys, load / stream.top_k)
            problem = TimedRequests(requests, np.ones(sets), fetch_s, slots, lead_s=1.0)
            answers, times = _repeated(lambda problem=problem: bracket(problem)[0], rounds)  # type: ignore[misc]
            seconds.append(float(np.median(times)))
            gaps.append(_gap(answers[0]))
    what = f"bracket on stall, {stream.tokens} tokens, worst of {len(gaps)}"
    yield BenchRow.of("optima", stream.name, what, [max(seconds)], "CPU s", targets=(1.5, None))
    yield BenchRow.of("optima", stream.name, what, [max(gaps)], "%", targets=(2.5, None))


def _placements(rounds: int, sizes: Sizes) -> Iterator[BenchRow]:
    """Copies of hot experts for a whole model, then a batch that differs, split over the copies of one layer."""
    slots = (sizes.experts + COPIES) // RANKS
    rng = np.random.default_rng(1)
    popular = np.arange(1, sizes.experts + 1) ** -0.8
    load = np.array([rng.multinomial(2**17, rng.permuted(popular / popular.sum())) for _ in range(sizes.layers)])
    profile = PlacementProfile(sizes.layers, sizes.experts, np.zeros(RANKS, np.int64), slots)
    profile.__dict__["load"] = load.astype(np.float64)
    plans, times = _repeated(lambda: replicated(profile), rounds)
    what = f"{sizes.layers} layers of {sizes.experts} experts and {COPIES} copies on {RANKS} GPUs"
    yield BenchRow.of("optima", "zipf", what, times, "CPU s", targets=(5.0, None))
    yield BenchRow.of("optima", "zipf", what, [_gap(plans[0].answer)], "%", targets=(0.1, None))
    drifted = rng.multinomial(2**15, 0.5 * popular / popular.sum() + 0.5 * load[0] / load[0].sum()).astype(np.float64)
    placed = plans[0].placement
    _, times = _repeated(lambda: split_tokens(drifted, placed.logical[0], placed.rank[0], RANKS), rounds)
    what = f"tokens over {sizes.experts + COPIES} experts on {RANKS} GPUs"
    yield BenchRow.of("optima", "zipf", what, times, "CPU s", targets=(0.05, None))


def _tiers(sizes: Sizes) -> Iterator[BenchRow]:
    """Tier and bit-width of every expert; a twentieth fits on the GPU, a third into host memory, in 16 bits."""
    rng = np.random.default_rng(1)
    count, bits = sizes.layers * sizes.experts, np.array(BITS)
    uses = rng.permuted(np.tile(np.arange(1, sizes.experts + 1) ** -0.8, (sizes.layers, 1)), axis=1).ravel()
    uses *= rng.lognormal(0.0, 0.2, count)
    one, none = np.tile(bits / 16, (count, 1)), np.zeros((count, len(bits)))
    seconds = np.concatenate([uses[:, None] * (0.01 + tier_s) * bits / 16 for tier_s in TIER_S], axis=1)
    error = uses[:, None] * rng.lognormal(0.0, 0.3, count)[:, None] * 4.0**-bits
    use = np.stack([np.concatenate([one, none, none], 1), np.concatenate([none, one, none], 1), np.tile(error, (1, 3))])
    capacity = np.array([count / 20, count / 3, 2.0 * float(error[:, 2].sum())])
    answers, times = _repeated(lambda: allocate(Choices(seconds, use, capacity), time_limit_s=30.0).answer, 1)
    what = f"tier and bit-width of {count:,} experts"
    yield BenchRow.of("optima", "zipf", what, times, "CPU s", targets=(30.0, None))
    yield BenchRow.of("optima", "zipf", what, [_gap(answers[0])], "%", targets=(0.05, None))


def _sets(stream: Stream, tokens: int) -> Requests:
    """A set for each token and layer."""
    experts = np.concatenate(list(stream.blocks(tokens))).astype(np.int64)
    keys = experts + (np.arange(stream.layers) * stream.experts)[:, None]
    return Requests(np.arange(0, keys.size + 1, stream.top_k, dtype=np.int64), keys.ravel(), stream.num_keys)


def _repeated(call: Callable[[], T], rounds: int) -> tuple[list[T], list[float]]:
    found, times = [], []
    for _ in range(rounds):
        begin = time.process_time()
        found.append(call())
        times.append(time.process_time() - begin)
    return found, times


def _timed(call: Callable[[], object]) -> float:
    return _repeated(call, 1)[1][0]


def _gap(found: Answer) -> float:
    """In percent."""
    return 100.0 if found.gap is None else 100.0 * found.gap
