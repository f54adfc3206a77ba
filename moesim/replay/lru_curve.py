"""LRU's hits at every cache size in one pass, for experts of equal size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.replay.compile import run
from moesim.replay.counts import Phase
from moesim.replay.kernels.distances import FAN, WORD, Stack
from moesim.replay.stream import VisitsPart
from moesim.traces.trace import DECODE

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LruCurve:
    """LRU at all sizes.

    Attributes:
        hits: of caches that hold 0, 1, 2, ... experts. [keys of a cache + 1]
        lookups: at every size.
        least: the smallest size that means something: no visit asks for more experts. (Under ``sequential``, 1.) Below
            it a visit runs in waves, and LRU is no stack algorithm.
    """

    hits: Ints
    lookups: int
    least: int


def lru_curve(
    parts: Iterable[VisitsPart],
    num_experts: int,
    rule: Literal["reserve", "evict_after", "sequential"] = "reserve",
    *,
    per_layer: bool = False,
    phase: Phase = "all",
) -> LruCurve:
    """Hits of LRU at all sizes; ``reserve`` and ``evict_after`` count alike.

    Args:
        parts: a workload's visits, with lookups as the rule has them.
        per_layer: one cache for each layer; sizes are then experts of each layer.
        phase: ``decode`` counts decode only; prefill still passes through the caches.
    """
    stacks: list[Stack] = []
    histogram, ignored, least = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 1
    for part in parts:
        if not stacks:
            caches = part.layers if per_layer else 1
            keys = part.layers * num_experts // caches
            stacks = [empty_stack(keys) for _ in range(caches)]
            histogram, ignored = np.zeros(keys + 1, dtype=np.int64), np.zeros(keys + 1, dtype=np.int64)
        if rule != "sequential":
            least = max(least, int(np.diff(part.lookup_start).max(initial=0)))
        for first, stop, is_counted in _runs(part, phase):
            target = histogram if is_counted else ignored
            for cache, stack in enumerate(stacks):
                visit = np.arange(first * part.layers + cache, stop * part.layers, len(stacks))
                _measure(part, visit, stack, cache * keys, rule, target)
    return LruCurve(np.concatenate([[0], np.cumsum(histogram[:-1])]), int(histogram.sum()), least)


def _runs(part: VisitsPart, phase: Phase) -> Iterator[tuple[int, int, bool]]:
    """Steps in a row that are counted, or not: first, stop, whether they are."""
    counted = np.ones(len(part.phase), dtype=np.bool_) if phase == "all" else part.phase == DECODE
    borders = [0, *(np.flatnonzero(np.diff(counted)) + 1).tolist(), len(counted)]
    for first, stop in pairwise(borders):
        if first < stop:
            yield first, stop, bool(counted[first])


def _measure(part: VisitsPart, visit: Ints, stack: Stack, first_key: int, rule: str, histogram: Ints) -> None:
    """Add the distances of some visits' lookups to the histogram."""
    start, key = _own(part.start, part.key, visit, first_key)
    if rule == "sequential":
        run(None, "use_distances", stack, key, histogram)
    else:
        lookups = _own(part.lookup_start, part.lookup_key, visit, first_key)
        run(None, "lookup_distances", stack, *lookups, start, key, histogram)


def _own(start: Ints, key: Ints, visit: Ints, first_key: int) -> tuple[Ints, Ints]:
    """The ragged column of some visits, keys counted from ``first_key``."""
    length = start[visit + 1] - start[visit]
    begin = np.concatenate([[0], np.cumsum(length)])
    if int(visit[-1] - visit[0]) == len(visit) - 1:  # they stand together
        return begin, np.require(key[start[visit[0]] : start[visit[-1] + 1]] - first_key, np.int64, ["C", "W"])
    return begin, key[np.arange(begin[-1]) + np.repeat(start[visit] - begin[:-1], length)] - first_key


def empty_stack(keys: int) -> Stack:
    """Room for four times as many numbers as there are keys, so that they are numbered anew rarely."""
    lengths = [-(-4 * max(keys, 1 << WORD) >> WORD)]
    while lengths[-1] > 1 << FAN:
        lengths.append(-(-lengths[-1] >> FAN))
    padded = [-(-length >> FAN) << FAN for length in lengths]
    return Stack(
        last=np.full(keys, -1, dtype=np.int32),
        key_of=np.zeros(lengths[0] << WORD, dtype=np.int32),
        mark=np.zeros(lengths[0], dtype=np.int64),
        counts=np.zeros(sum(padded), dtype=np.int32),
        level_start=np.cumsum([0, *padded[:-1]]),
        next_number=np.zeros(1, dtype=np.int64),
    )
