"""The fewest fetches, for experts of equal size: exact, at every point of time at once, in one pass.

The same number as Belady's MIN, as the interval program's, and as a search over cache contents (tests). Prefetching
can't lower it: it counts transfers, whenever they are made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError
from moesim.optimal.caching.requests import MODELS, Ints, Model, Requests
from moesim.replay import compile as compiler
from moesim.replay.kernels.fewest import fewest_misses

#: From so many lookups on the kernel runs compiled; interpreted, that many take half a second.
COMPILE_FROM = 200_000


def fewest(requests: Requests, slots: int, model: Model = "together", *, warm: bool = False) -> NDArray[np.bool_]:
    """Which lookups miss when as few as possible do. [lookups]

    Args:
        slots: experts that the cache holds.
        warm: the cache may hold anything at the start, instead of nothing.

    Raises:
        MoesimError: under ``together`` a set is larger than the cache.
    """
    if model == "together" and requests.largest_set > slots:
        told = f"a set of {requests.largest_set} experts does not stand together in {slots} slots"
        raise MoesimError.of("caching", told, "model 'bypass' bounds the fetches of visits that run in waves")
    missed = np.zeros(len(requests.key), dtype=np.bool_)
    sets, number = requests.num_sets, MODELS.index(model)
    kind = np.int32 if max(sets, slots, len(requests.key)) < 2**31 - 2 else np.int64  # half the memory to go through
    room = [np.zeros(length, dtype=kind) for length in (requests.num_keys, sets + 2, sets + 2)]
    if len(requests.key) >= COMPILE_FROM:
        arrays = (np.require(array, np.int64, ["C", "W"]) for array in (requests.start, requests.key))
        compiler.run(None, "fewest_misses", *arrays, slots, number, warm, *room, missed)
        return missed
    found: list[Any] = [False] * len(requests.key)
    start, key, last, before, rise = (array.tolist() for array in (requests.start, requests.key, *room))
    fewest_misses(start, key, slots, number, warm, last, before, rise, found)
    missed[:] = found
    return missed


def fewest_by_set(requests: Requests, slots: int, model: Model = "together", *, warm: bool = False) -> Ints:
    """The fewest fetches up to and with each set. [sets]"""
    missed = np.concatenate([[0], np.cumsum(fewest(requests, slots, model, warm=warm))])
    return np.asarray(missed[requests.start[1:]], dtype=np.int64)


def fewest_by_layer(requests: Requests, num_layers: int, slots: list[int], model: Model = "together") -> list[int]:
    """The fewest fetches of each layer with a cache of its own. [layers]"""
    return [int(fewest(requests.of_layer(layer, num_layers), count, model).sum()) for layer, count in enumerate(slots)]
