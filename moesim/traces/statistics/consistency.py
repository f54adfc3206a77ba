"""SRP and SCH: how well a few experts cover a stretch of tokens.

Both are of "Not All Models Suit Expert Offloading" (Liang et al., arXiv 2505.16056), read from the paper and from what
its published code computes. The paper takes samples of 512 tokens; here every run of consecutive tokens is a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.traces.statistics.rows import TokenRows

Floats = NDArray[np.float64]


def segment_routing_performance(rows: TokenRows, segment: int) -> Floats:
    """SRP(m), the segment routing best performance: the best F1 of a router that decides once per segment. [layers]

    Such a router activates, for all m tokens of a segment, the experts that at least c of them chose. Over all segments
    (every window of m consecutive tokens of a run), with n = how many of its tokens chose an expert:
    hits(c) = sum of n where n >= c; predicted(c) = m times the number of n >= c; actual = sum of n;
    F1(c) = 2 hits / (predicted + actual); SRP = max over c. 1 where all tokens of a segment choose alike; NaN where no
    run is long enough or a layer has no experts.
    """
    best = np.full(rows.num_layers, np.nan)
    ends = np.arange(segment, rows.num_tokens + 1)
    ends = ends[rows.run[ends - 1] == rows.run[ends - segment]]
    if not len(ends):
        return best
    for layer in range(rows.num_layers):
        total = np.cumsum(np.pad(rows.uses(layer), ((1, 0), (0, 0))), axis=0, dtype=np.int32)
        counts = np.bincount((total[ends] - total[ends - segment]).ravel(), minlength=segment + 1)
        hits = np.cumsum((counts * np.arange(segment + 1))[::-1])[::-1]
        predicted = segment * np.cumsum(counts[::-1])[::-1]
        if hits[0]:
            best[layer] = (2 * hits / (predicted + hits[0])).max()
    return best


def segment_cache_hit_rate(rows: TokenRows, segment: int, slots: int, fills_hit: bool = True) -> Floats:
    """SCH(m, slots), the segment cache hit rate: what a cache reaches that sees the next m tokens. [layers]

    A cache of ``slots`` experts per layer, empty at the start of each run. A token's experts are looked up against the
    state before it; then the missing ones come in one by one in recorded order, each in place of the resident expert
    that the next m tokens (this one's remaining experts included) use least, among equals the least recently used.
    The paper gives ``slots`` as rho x top_k. ``fills_hit``: bringing an expert into a free slot counts as a hit, as the
    published code does (no compulsory misses). NaN where a layer has no experts.
    """
    caches = _SegmentCaches(rows, segment, slots)
    hits = np.zeros(rows.num_layers)
    for index in range(int(np.diff(rows.run_starts).max(initial=0))):
        hits += caches.step(index, fills_hit)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(hits / rows.present.sum(axis=(0, 2)))


class _SegmentCaches:
    """One cache for each run and layer, all stepped together: token i of every run at once.

    State arrays are [runs * layers, num_experts]; a cache's index is run * layers + layer.
    """

    def __init__(self, rows: TokenRows, segment: int, slots: int):
        self._rows, self._segment, self._slots = rows, segment, slots
        caches = (len(rows.run_starts) - 1) * rows.num_layers
        self._resident = np.zeros((caches, rows.num_experts), bool)
        self._ahead = np.zeros((caches, rows.num_experts), np.int64)
        self._last_use = np.zeros((caches, rows.num_experts), np.int64)
        self._clock = 0
        for index in range(segment):
            self._look_at(index)

    def _tokens(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ``index`` of the runs that have one: its caches [n], and its ids [n, top_k], -1 where there is none."""
        rows, starts = self._rows, self._rows.run_starts
        runs = np.flatnonzero(starts[:-1] + index < starts[1:])
        token = starts[runs] + index
        ids = np.where(rows.present[token], rows.experts[token].astype(np.int64), -1)
        caches = runs[:, None] * rows.num_layers + np.arange(rows.num_layers)
        return caches.ravel(), ids.reshape(-1, rows.top_k)

    def _look_at(self, index: int) -> None:
        """Token ``index`` of each run comes into sight."""
        caches, ids = self._tokens(index)
        for slot in ids.T:
            self._ahead[caches[slot >= 0], slot[slot >= 0]] += 1

    def step(self, index: int, fills_hit: bool) -> NDArray[np.int64]:
        """Serve token ``index`` of every run; the hits of each layer. [layers]"""
        caches, ids = self._tokens(index)
        hits = ((ids >= 0) & np.take_along_axis(self._resident[caches], np.maximum(ids, 0), axis=1)).sum(axis=1)
        for slot in ids.T:
            serving = np.flatnonzero(slot >= 0)
            cache, expert = caches[serving], slot[serving]
            missing = ~self._resident[cache, expert]
            full = self._resident[cache].sum(axis=1) >= self._slots
            if fills_hit:
                hits[serving[missing & ~full]] += 1
            self._evict(cache[missing & full])
            self._resident[cache, expert] = True
            self._clock += 1
            self._last_use[cache, expert] = self._clock
            self._ahead[cache, expert] -= 1
        self._look_at(index + self._segment)
        return np.bincount(caches % self._rows.num_layers, hits, self._rows.num_layers).astype(np.int64)

    def _evict(self, caches: NDArray[np.int64]) -> None:
        worth = self._ahead[caches] * (self._clock + 1) + self._last_use[caches]
        worth[~self._resident[caches]] = np.iinfo(np.int64).max
        self._resident[caches, worth.argmin(axis=1)] = False
