"""What tokens share with the tokens that run beside or before them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.traces.statistics.rows import TokenRows

Floats = NDArray[np.float64]
Together = Literal["sequence", "requests"]


def distinct_experts(rows: TokenRows, batch: int, together: Together) -> Floats:
    """Mean number of distinct experts of a layer that ``batch`` tokens touch. [layers]

    ``sequence``: over every window of that many consecutive tokens of one run (as a prefill chunk, or the drafts of
    speculative decoding, run together). ``requests``: tokens at the same index of that many different runs, the runs
    taken in order in groups (as a decode batch runs). Windows with a token that has no expert there are left out; NaN
    where none remains.
    """
    groups = _windows(rows, batch) if together == "sequence" else _lockstep(rows, batch)
    means = np.full(rows.num_layers, np.nan)
    for layer in range(rows.num_layers):
        whole = groups[rows.recorded[:, layer][groups].all(axis=1)]
        if len(whole):
            means[layer] = _distinct(rows.uses(layer), whole).mean()
    return means


def _distinct(uses: NDArray[np.bool_], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Experts used by any token of each group. ``groups``: [groups, batch] -> [groups]"""
    touched = uses[groups[:, 0]]
    for column in groups.T[1:]:
        touched |= uses[column]
    return np.asarray(touched.sum(axis=1))


def _windows(rows: TokenRows, batch: int) -> NDArray[np.int64]:
    first = np.arange(rows.num_tokens - batch + 1) if batch <= rows.num_tokens else np.zeros(0, np.int64)
    first = first[rows.run[first] == rows.run[first + batch - 1]]
    return np.asarray(first[:, None] + np.arange(batch))


def _lockstep(rows: TokenRows, batch: int) -> NDArray[np.int64]:
    index = np.arange(rows.num_tokens) - rows.run_starts[rows.run]
    order = np.lexsort((rows.run, index))
    starts = np.searchsorted(index[order], np.arange(index.max(initial=-1) + 2))
    groups = [
        order[start : start + (stop - start) // batch * batch].reshape(-1, batch) for start, stop in pairwise(starts)
    ]
    return np.concatenate([np.zeros((0, batch), np.int64), *groups])


def distinct_if_uniform(num_experts: int, top_k: int, batch: int) -> float:
    """E (1 - (1 - k/E)^B): distinct experts expected of B tokens that choose k of E alike and independently."""
    return float(num_experts * (1 - (1 - top_k / num_experts) ** batch))


def distinct_bound(num_experts: int, top_k: int, batch: int) -> int:
    """min(E, B k): the most that B tokens can touch."""
    return min(num_experts, batch * top_k)


def consecutive_overlap(rows: TokenRows) -> Floats:
    """Share of a token's experts that the token before it used as well, mean over tokens; k/E by chance. [layers]

    Over pairs of consecutive tokens of one run that both have experts in the layer; NaN where there is none.
    """
    later = np.flatnonzero(np.diff(rows.run, prepend=-1) == 0)
    now, before = rows.experts[later], rows.experts[later - 1]
    again = np.asarray((now[..., :, None] == before[..., None, :]).any(axis=-1))
    shared = (again & rows.present[later]).sum(axis=-1)
    size = rows.present[later].sum(axis=-1)
    known = rows.recorded[later] & rows.recorded[later - 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, shared / size, 0.0).sum(axis=0) / known.sum(axis=0))


def reuse_gaps(rows: TokenRows) -> list[NDArray[np.int64]]:
    """For each layer, how many tokens ago each activation's expert was used last in the same run.

    1 = by the token before; 0 = not before in this run (a first use). In the order of (expert, token), [activations].
    """
    gaps = []
    for layer in range(rows.num_layers):
        token, slot = np.nonzero(rows.present[:, layer])
        expert = rows.experts[token, layer, slot]
        order = np.lexsort((token, expert))
        token, expert = token[order], expert[order]
        again = np.zeros(len(token), bool)
        again[1:] = (expert[1:] == expert[:-1]) & (rows.run[token[1:]] == rows.run[token[:-1]])
        gaps.append(np.where(again, np.diff(token, prepend=0), 0))
    return gaps


def reuse_shares(gaps: Sequence[NDArray[np.int64]], limits: Sequence[int]) -> Floats:
    """Share of all activations whose expert was used at most ``limits`` tokens before. [limits]; NaN without any."""
    every = np.concatenate([np.zeros(0, np.int64), *gaps])
    if not len(every):
        return np.full(len(limits), np.nan)
    return np.array([((every > 0) & (every <= limit)).mean() for limit in limits])


def cycle_experts(rows: TokenRows) -> float:
    """Experts that one token's pass through all layers touches, mean over tokens: k x layers where none is missing.

    This is the cliff of expert caches at batch 1. An expert is asked for again one pass later at the earliest, after
    the experts of all other layers; so a global LRU that holds no more than k x (layers - 1) of them never hits, and
    one that holds k x layers hits whatever consecutive tokens share.
    """
    return float(rows.present.sum(axis=(1, 2)).mean()) if rows.num_tokens else float("nan")


def cycle_bytes(rows: TokenRows, expert_bytes: Sequence[int]) -> float:
    """Bytes of the experts of :func:`cycle_experts`; ``expert_bytes``: one size per layer."""
    if not rows.num_tokens:
        return float("nan")
    return float(rows.present.sum(axis=2).mean(axis=0) @ np.asarray(expert_bytes, np.float64))
