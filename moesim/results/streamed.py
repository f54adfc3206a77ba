"""Distributions of samples that come batch by batch: exact while they are few, in narrow bins when they are many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.results.metrics import distribution
from moesim.results.result import Distribution

Floats = NDArray[np.float64]
#: Up to so many samples are kept; beyond, percentiles come from bins, each so much wider than the one before.
EXACT, RATIO, FIRST, BINS = 200_000, 1.005, 1e-6, 8192


class Streamed:
    """A distribution that is fed in batches."""

    def __init__(self) -> None:
        self._kept: list[Floats] = []
        self._bins = np.zeros(BINS, dtype=np.int64)
        self._count, self._sum, self._low, self._high = 0, 0.0, np.inf, -np.inf

    def add(self, values: Floats) -> None:
        """More samples, none below 0."""
        if not len(values):
            return
        if self._count + len(values) <= EXACT:
            self._kept.append(values)
        else:
            self._kept = []
        self._count += len(values)
        self._sum += float(values.sum())
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        place = np.log(np.maximum(values, FIRST) / FIRST) / np.log(RATIO)
        np.add.at(self._bins, np.minimum(place.astype(np.int64), BINS - 1), 1)

    def summary(self) -> Distribution | None:
        """Mean and percentiles; None without a sample."""
        if self._count <= EXACT:
            return distribution(np.concatenate(self._kept) if self._kept else [])
        return of_bins(self._bins, FIRST, RATIO, self._sum, (self._low, self._high))


def of_bins(
    bins: NDArray[np.int64], first: float, ratio: float, total: float, ends: tuple[float, float] | None = None
) -> Distribution | None:
    """A distribution from counts in bins; percentiles are the middles of their bins.

    Args:
        first: lower edge of the first bin; each is ``ratio`` times as wide as the one before.
        total: the exact sum of the samples.
        ends: the least and the largest, where known; else the outer bins' middles.
    """
    count = int(bins.sum())
    if not count:
        return None
    middle = first * ratio ** (np.arange(len(bins)) + 0.5)
    at = np.cumsum(bins)
    p50, p90, p99 = (float(middle[np.searchsorted(at, share * count)]) for share in (0.5, 0.9, 0.99))
    used = np.flatnonzero(bins)
    low, high = ends or (float(middle[used[0]]), float(middle[used[-1]]))
    return Distribution(n=count, mean=total / count, p50=p50, p90=p90, p99=p99, min=low, max=high)
