"""A workload as optima of caching see it: sets of experts, asked for one set after the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
#: ``together``: a whole set stands in the cache at once (rule ``reserve``). ``bypass``: a set streams through a place
#: of its own, and the cache holds what is kept between sets (visits that run in waves, or are streamed).
#: ``overshoot``: as ``bypass``, but after a set the cache may hold all of it and one expert that is on its way, even
#: where that is more than its slots (rule ``evict_after``).
Model = Literal["together", "bypass", "overshoot"]
#: In the order in which ``replay.kernels.fewest`` numbers them.
MODELS: tuple[Model, ...] = ("together", "bypass", "overshoot")


@dataclass(frozen=True)
class Requests:
    """Sets of keys in the order in which they are asked for; no key twice in a set.

    Attributes:
        start: the keys of set s are ``key[start[s]:start[s + 1]]``. [sets + 1]
        key: [lookups]
        num_keys: keys count from 0 to this.
    """

    start: Ints
    key: Ints
    num_keys: int

    @property
    def num_sets(self) -> int:
        """How many sets."""
        return len(self.start) - 1

    @property
    def set_of_lookup(self) -> Ints:
        """[lookups]"""
        return np.repeat(np.arange(self.num_sets), np.diff(self.start))

    @property
    def largest_set(self) -> int:
        """Keys of the largest set."""
        return int(np.diff(self.start).max(initial=0))

    @property
    def sets(self) -> list[list[int]]:
        """As plain lists."""
        keys, start = self.key.tolist(), self.start.tolist()
        return [keys[begin:end] for begin, end in pairwise(start)]

    def of_layer(self, layer: int, num_layers: int) -> Requests:
        """The sets ``layer``, ``layer + num_layers``, ..., keys counted from the layer's first."""
        chosen = np.arange(layer, self.num_sets, num_layers)
        sizes = np.diff(self.start)[chosen]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        place = np.arange(start[-1]) + np.repeat(self.start[:-1][chosen] - start[:-1], sizes)
        experts = self.num_keys // num_layers
        return Requests(start, self.key[place] - layer * experts, experts)


def requests_of(visits: Visits) -> Requests:
    """A set for each visit: its lookups."""
    return Requests(np.asarray(visits.lookup_start, np.int64), np.asarray(visits.lookup_key, np.int64), visits.num_keys)


def requests_from(sets: list[list[int]], num_keys: int) -> Requests:
    """From plain lists."""
    start = np.concatenate([[0], np.cumsum([len(keys) for keys in sets])]).astype(np.int64)
    return Requests(start, np.array([key for keys in sets for key in keys], dtype=np.int64), num_keys)


def singles(keys: Ints, num_keys: int) -> Requests:
    """Each use a set of its own (rule ``sequential``)."""
    return Requests(np.arange(len(keys) + 1, dtype=np.int64), np.asarray(keys, np.int64), num_keys)
