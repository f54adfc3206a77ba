"""Visits over bit-planes: each expert becomes as many keys as it has widths, numbered one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from moesim.policies.precision import Planes
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]


def expand(visits: Visits, planes: Planes, rng: np.random.Generator) -> tuple[Visits, Ints]:
    """The same workload over planes, and for how many tokens each lookup is computed.

    Each activation draws a width. It activates the planes up to it, the highest first, so that under LRU a lower plane
    is never older than a higher one; its gate weight stands with the plane of its width, 0 with the others.

    Returns:
        The visits, and the tokens whose width each lookup's plane completes. [lookups]
    """
    count = len(planes.bits)
    width = rng.choice(count, size=len(visits.activation_key), p=planes.shares)
    repeats = width + 1
    source = np.repeat(np.arange(len(width)), repeats)
    plane = np.repeat(np.cumsum(repeats), repeats) - 1 - np.arange(len(source))
    key = visits.activation_key[source] * count + plane
    start = np.concatenate([[0], np.cumsum(repeats)])[visits.activation_start]
    weight = np.where(plane == width[source], visits.activation_weight[source], 0.0)
    exact = np.zeros((len(visits.lookup_key), count), dtype=np.int64)
    np.add.at(exact, (visits.activation_lookup, width), 1)
    deepest = np.zeros(len(visits.lookup_key), dtype=np.int64)
    np.maximum.at(deepest, visits.activation_lookup, width)
    order = [pair for visit in range(visits.num_visits) for pair in _asked(visits, visit, exact, deepest, planes)]
    lookup, level = np.array(order, dtype=np.int64).reshape(-1, 2).T
    number = np.full((len(visits.lookup_key), count), -1)
    number[lookup, level] = np.arange(len(lookup))
    expanded = replace(
        visits,
        num_experts=visits.num_experts * count,
        activation_start=start,
        activation_key=key,
        activation_row=visits.activation_row[source],
        activation_weight=weight,
        activation_lookup=number[visits.activation_lookup[source], plane],
        lookup_start=np.concatenate([[0], np.cumsum(deepest + 1)])[visits.lookup_start],
        lookup_key=visits.lookup_key[lookup] * count + level,
        lookup_tokens=np.bincount(number[visits.activation_lookup[source], plane], minlength=len(lookup)),
    )
    return expanded, exact[lookup, level]


def _asked(visits: Visits, visit: int, exact: Ints, deepest: Ints, planes: Planes) -> Iterator[tuple[int, int]]:
    """(lookup, plane) in the order in which they are asked for."""
    lookups = range(visits.lookup_start[visit], visits.lookup_start[visit + 1])
    if not planes.hottest_first:
        yield from ((lookup, level) for lookup in lookups for level in range(deepest[lookup] + 1))
        return
    heads = [(-int(exact[lookup, 0]), lookup, 0) for lookup in lookups]
    heapify(heads)
    while heads:
        _, lookup, level = heappop(heads)
        yield lookup, level
        if level < deepest[lookup]:
            heappush(heads, (-int(exact[lookup, level + 1]), lookup, level + 1))
