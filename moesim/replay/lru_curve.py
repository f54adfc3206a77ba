"""LRU's hits at every cache size in one pass, for experts of equal size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.replay.compile import run
from moesim.replay.kernels.distances import FAN, WORD, Stack
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]


def lru_hits(visits: Visits, rule: Literal["reserve", "sequential"] = "reserve", *, per_layer: bool = False) -> Ints:
    """Hits of LRU caches that hold 0, 1, 2, ... experts. [keys of a cache + 1]

    Under ``reserve`` (and, alike, ``evict_after``) a size below the largest visit's lookups means nothing: there the
    visit runs in waves, and LRU is no stack algorithm.

    Args:
        per_layer: one cache for each layer; sizes are then experts of each layer.
    """
    parts = visits.num_layers if per_layer else 1
    keys = visits.num_keys // parts
    histogram = np.zeros(keys + 1, dtype=np.int64)
    for part in range(parts):
        visit = np.arange(part, visits.num_visits, parts)
        start, key = _own(visits.activation_start, visits.activation_key, visit, part * keys)
        if rule == "sequential":
            run(None, "use_distances", empty_stack(keys), key, histogram)
        else:
            lookups = _own(visits.lookup_start, visits.lookup_key, visit, part * keys)
            run(None, "lookup_distances", empty_stack(keys), *lookups, start, key, histogram)
    return np.concatenate([[0], np.cumsum(histogram[:-1])])


def _own(start: Ints, key: Ints, visit: Ints, first_key: int) -> tuple[Ints, Ints]:
    """The ragged column of some visits, keys counted from ``first_key``."""
    length = start[visit + 1] - start[visit]
    begin = np.concatenate([[0], np.cumsum(length)])
    if len(visit) == len(start) - 1:
        return begin, np.require(key, np.int64, ["C", "W"])
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
