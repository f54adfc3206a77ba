"""How unevenly experts are used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.traces.statistics.rows import TokenRows

Floats = NDArray[np.float64]


def load(rows: TokenRows) -> NDArray[np.int64]:
    """Activations of each expert. [layers, num_experts]"""
    counts = np.empty((rows.num_layers, rows.num_experts), np.int64)
    for layer in range(rows.num_layers):
        ids = rows.experts[:, layer][rows.present[:, layer]]
        counts[layer] = np.bincount(ids, minlength=rows.num_experts)[: rows.num_experts]
    return counts


def load_cv(counts: NDArray[np.int64]) -> Floats:
    """Coefficient of variation of the load: standard deviation over mean of the experts' activations.

    ``counts``: [..., num_experts]. 0 where all are used alike, sqrt(E - 1) where one does everything; sampling alone
    gives about sqrt((E - k) / (k T)) after T tokens of uniform routing. NaN where nothing was used. [...]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts.std(axis=-1) / counts.mean(axis=-1))


def effective_experts(counts: NDArray[np.int64]) -> Floats:
    """exp of the load's entropy: as many equally used experts would have it. From 1 to E; NaN where nothing was used.

    ``counts``: [..., num_experts]. [...]
    """
    return np.asarray(np.exp(_entropy(_shares(counts))))


def divergence(counts: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """Jensen-Shannon divergence of two loads, in bits: 0 where the shares are equal, 1 where no expert serves both.

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2, for ``counts`` and ``others`` [..., num_experts] as shares. Small
    samples differ by chance; compare with the divergence of two random halves. NaN where either is empty. [...]
    """
    p, q = _shares(counts), _shares(others)
    bits = (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2) / np.log(2)
    return np.asarray(np.maximum(bits, 0.0))


def _shares(counts: NDArray[np.int64]) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=-1, keepdims=True))


def _entropy(shares: Floats) -> Floats:
    """In nats, over the last axis."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=-1))
