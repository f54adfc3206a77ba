"""A dense product ``y[m, n] = x[m, k] w[k, n]`` in bf16.

``t = launch + (R^p + C^p)^(1/p)``

- ``R = (w nk + 2 mk + 2 mn) / (e_b B)``: weights (w bytes each, 2 in bf16), input and output once through memory.
- ``C = min over tiles (a, b) and splits s of  waves * (k/s) * (2ab / f + k_step) + [s > 1] (split + reduce)``:
  each SM works through its share of the ``ceil(m/a) ceil(n/b) s`` blocks at ``f = e_c F / SMs``, a block takes
  ``k_step`` more for every step along k, and dividing k over s blocks costs a second pass,
  ``reduce = s * 4 m n / (e_b B)``. A library picks the best tile and split: so does the minimum.
- ``waves = (1 - q) max(w, 1) + q ceil(w)`` with ``w = blocks / SMs``: q = 1 if all SMs wait for the last wave.

Assumes row-major bf16 without epilogue. Source of the constants: ``moesim.hardware.fits``.
"""

from __future__ import annotations

import numpy as np

from moesim.costs.fitted import Constant, Constants, Floats, Form, Peaks, Terms, Work, overlapped

#: Rows and columns of the output that one block computes.
TILES = ((16, 64), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
SPLITS = (1, 2, 4, 8, 16, 32)

CONSTANTS = (
    Constant("launch", "us", 3e-6, 0.3e-6, 30e-6, "the kernel without work"),
    Constant("k_step", "us", 4e-10, 1e-12, 1e-8, "latency of a block for each step along k"),
    Constant("bandwidth_share", "1", 0.85, 0.3, 1.0, "e_b: of the datasheet's bandwidth"),
    Constant("arithmetic_share", "1", 0.8, 0.3, 1.0, "e_c: of the datasheet's arithmetic"),
    Constant("sharpness", "1", 2.0, 1.0, 8.0, "p: how sharply reading and computing overlap"),
    Constant("split", "us", 2e-6, 1e-8, 20e-6, "second pass after dividing k"),
    Constant("quantisation", "1", 0.5, 0.01, 1.0, "q: how much an unfilled last wave counts"),
)


def terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """The terms of the module's equation; ``work`` has ``m``, ``n``, ``k``, and ``weight_bytes`` where not bf16."""
    m, n, k = np.broadcast_arrays(work["m"], work["n"], work["k"])
    weights = work.get("weight_bytes", np.asarray(2.0)) * n * k
    bandwidth = peaks.bytes_per_s * constants["bandwidth_share"]
    reads, compute = overlapped(
        (weights + 2 * (m * k + m * n)) / bandwidth, _blocks_s(m, n, k, peaks, constants), constants["sharpness"]
    )
    return {"launch": np.full(reads.shape, constants["launch"]), "memory": reads, "arithmetic": compute}


def _blocks_s(m: Floats, n: Floats, k: Floats, peaks: Peaks, constants: Constants) -> Floats:
    """The fastest of all tiles and splits."""
    rate = peaks.flop_per_s * constants["arithmetic_share"] / peaks.sms
    reduce_s = 4 * m * n / (peaks.bytes_per_s * constants["bandwidth_share"])
    quantisation = constants["quantisation"]
    best = np.full(m.shape, np.inf)
    for rows, columns in TILES:
        tiles = np.ceil(m / rows) * np.ceil(n / columns)
        step = 2 * rows * columns / rate + constants["k_step"]
        for split in SPLITS:
            share = tiles * (split / peaks.sms)
            waves = (1 - quantisation) * np.maximum(share, 1) + quantisation * np.ceil(share)
            seconds = waves * (k * (step / split))
            if split > 1:
                seconds = seconds + (constants["split"] + split * reduce_s)
            np.minimum(best, seconds, out=best)
    return best


FORM = Form("gemm", CONSTANTS, terms)


def naive_seconds(work: Work, peaks: Peaks) -> Floats:
    """The plain roofline with the datasheet's peaks."""
    m, n, k = work["m"], work["n"], work["k"]
    return np.maximum(2 * (n * k + m * k + m * n) / peaks.bytes_per_s, 2 * m * n * k / peaks.flop_per_s)
