"""What one layer's experts say about the next layers' experts, and about each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.traces.statistics.rows import TokenRows
from moesim.traces.trace import Array

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def pair_counts(rows: TokenRows, layer: int, other: int) -> NDArray[np.int64]:
    """Tokens that use expert a in ``layer`` and expert b in ``other``. [num_experts, num_experts]"""
    return _pairs(rows.ids(layer), rows.ids(other), rows.num_experts)


def _pairs(ids: Ints, others: Ints, num_experts: int) -> Ints:
    """Counts of the pairs of each token's ids, [tokens, top_k] each; ``num_experts`` stands for none."""
    width = num_experts + 1
    cells = ids[:, :, None] * width + others[:, None, :]
    return np.bincount(cells.ravel(), minlength=width * width).reshape(width, width)[:-1, :-1]


def pair_lift(rows: TokenRows, layer: int) -> Floats:
    """How much more often two experts of a layer serve the same token than if each chose on its own.

    P(a and b) / (P(a) P(b)) over the layer's tokens; NaN on the diagonal and for unused experts.
    [num_experts, num_experts]
    """
    both = pair_counts(rows, layer, layer).astype(np.float64)
    alone = both.diagonal().copy()
    np.fill_diagonal(both, np.nan)
    tokens = int(rows.recorded[:, layer].sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(both * tokens / (alone[:, None] * alone))


def next_layer_information(rows: TokenRows, first_choice_only: bool = False) -> tuple[Floats, Floats]:
    """How much of a layer's choice the layer before it tells: I(X; Y) / H(Y), and what chance alone gives.

    X is an expert of layer l and Y one of layer l + 1 of the same token, drawn from the token's k x k pairs
    (``first_choice_only``: from the first slots, which is the router's first choice where the trace keeps its order).
    Plug-in estimate, which is too high for small samples; so the second array has the same figure for tokens paired
    with the token half a trace away, with which they share no context. [layers - 1] each; NaN where nothing is known.
    """
    shares, by_chance = (np.full(max(0, rows.num_layers - 1), np.nan) for _ in range(2))
    slots = 1 if first_choice_only else rows.top_k
    for layer in range(rows.num_layers - 1):
        both = rows.recorded[:, layer] & rows.recorded[:, layer + 1]
        now, then = (rows.ids(depth)[both, :slots] for depth in (layer, layer + 1))
        if len(now):
            shares[layer] = _information_share(_pairs(now, then, rows.num_experts))
            elsewhere = np.roll(then, len(then) // 2, axis=0)
            by_chance[layer] = _information_share(_pairs(now, elsewhere, rows.num_experts))
    return shares, by_chance


def _information_share(pairs: NDArray[np.int64]) -> float:
    """I(X; Y) / H(Y) of a table of counts; NaN where Y is always the same."""

    def entropy(counts: NDArray[np.int64]) -> float:
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    of_y = entropy(pairs.sum(axis=0))
    return (entropy(pairs.sum(axis=1)) + of_y - entropy(pairs.ravel())) / of_y if of_y > 0 else float("nan")


def lookahead_recall(rows: TokenRows, predicted: Array, distance: int) -> Floats:
    """Share of a layer's experts that were predicted for it ``distance`` layers before, mean over tokens. [layers]

    ``predicted``: the trace's channel for that distance, [trace rows, layers, top_k]. Entry l is about the experts of
    layer l, foretold at layer l - distance: NaN for the first layers, and where nothing was predicted or recorded.
    """
    recall = np.full(rows.num_layers, np.nan)
    for layer in range(distance, rows.num_layers):
        guess = np.asarray(predicted[:, layer - distance][rows.row])
        actual, present = rows.experts[:, layer], rows.present[:, layer]
        known = rows.recorded[:, layer] & (guess != np.iinfo(guess.dtype).max).any(axis=1)
        if known.any():
            found = (actual[..., None] == guess[:, None, :]).any(axis=-1) & present
            recall[layer] = (found[known].sum(axis=1) / present[known].sum(axis=1)).mean()
    return recall


def successor_recall(rows: TokenRows) -> tuple[Floats, Floats]:
    """How well a table of "which expert follows which" predicts the next layer, and how well popularity alone does.

    The table is counted on the first half of the tokens and judged on the second: every expert b of layer l scores the
    sum of P(b | a) over the token's experts a of layer l - 1, the k best are the prediction, and the recall is the
    share of the true ones among them, mean over tokens. Popularity predicts the k most used of the first half. Uniform
    routing gives k/E in both. Entry l is about layer l; NaN for layer 0 and where nothing is known. [layers] each
    """
    recall, popular = (np.full(rows.num_layers, np.nan) for _ in range(2))
    half = rows.num_tokens // 2
    for layer in range(1, rows.num_layers):
        both = rows.recorded[:, layer - 1] & rows.recorded[:, layer]
        learned, judged = (np.flatnonzero(both[part]) + part.start for part in (slice(0, half), slice(half, None)))
        if not (len(learned) and len(judged)):
            continue
        before, actual = rows.ids(layer - 1), rows.uses(layer)
        pairs = _pairs(before[learned], rows.ids(layer)[learned], rows.num_experts)
        used = np.bincount(before[learned].ravel(), minlength=rows.num_experts + 1)
        table = np.pad(pairs, ((0, 1), (0, 0))) / np.maximum(used, 1)[:, None]
        scores = sum(table[slot] for slot in before[judged].T)
        recall[layer] = _recall(scores, actual[judged], rows.top_k)
        popular[layer] = _recall(actual[learned].sum(axis=0, dtype=np.float64)[None], actual[judged], rows.top_k)
    return recall, popular


def _recall(scores: Floats, actual: NDArray[np.bool_], top_k: int) -> float:
    """Share of the true experts among the ``top_k`` with the best scores. ``actual``: [tokens, num_experts]"""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    found = np.take_along_axis(actual, np.broadcast_to(best, (len(actual), top_k)), axis=1).sum(axis=1)
    return float((found / actual.sum(axis=1)).mean())
