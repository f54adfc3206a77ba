"""Collectives among n GPUs of one node (NCCL, custom all-reduces), and point to point.

``t = (t_1^-p + t_2^-p)^(-1/p) * [1 + int8]``, the faster of two protocols with a soft change between them:

- ``t_1 = alpha + (n-2) step + V' / (low_share L)``: the low-latency protocol, which spends bandwidth on flags.
- ``t_2 = alpha + extra + (n-2) step + V' / (share L)``: the bulk protocol.
- ``V' = V (1 + local / (n-1))``: a GPU also moves its own part of the data, 1/n of it, within its memory.
- V is what a GPU sends: ``2 (n-1)/n`` of the bytes for all-reduce, ``(n-1)/n`` for all-gather (of the gathered output),
  reduce-scatter (of the input) and all-to-all (of the send buffer), all of them for point to point: the bus bytes of
  nccl-tests.
- L is the raw bandwidth of the link between the GPUs, one way. Reductions of int8 take ``1 + int8`` as long.

Assumes a node whose GPUs all reach each other at L; a bridge between pairs only, or two nodes, is another level with
its own constants (alpha-beta per level). The custom all-reduces of vLLM, SGLang and TensorRT-LLM have the same form.
Source of the constants: ``moesim.hardware.fits``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moesim.costs.fitted import Constant, Constants, Floats, Form, Peaks, Terms, Work

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")

CONSTANTS = (
    Constant("alpha", "us", 5e-6, 1e-6, 100e-6, "two GPUs and no bytes"),
    Constant("step", "us", 1e-6, 1e-9, 20e-6, "each further GPU"),
    Constant("low_share", "1", 0.2, 0.01, 1.0, "of the link's bandwidth, low-latency protocol"),
    Constant("extra", "us", 5e-6, 1e-8, 100e-6, "what the bulk protocol needs more"),
    Constant("local", "1", 0.5, 0.01, 4.0, "a GPU's own part, relative to sending it"),
    Constant("share", "1", 0.75, 0.01, 1.0, "of the link's bandwidth, bulk protocol"),
    Constant("sharpness", "1", 3.0, 1.0, 12.0, "p: large is a sudden change of protocol"),
    Constant("int8", "1", 0.05, 0.001, 0.3, "extra time of reductions in int8"),
)


def bus_bytes(operation: str, num_bytes: ArrayLike, gpus: ArrayLike) -> Floats:
    """V of the module's equation."""
    n = np.asarray(gpus, dtype=np.float64)
    factor = {"all_reduce": 2 * (n - 1) / n, "send_recv": np.ones_like(n)}.get(operation, (n - 1) / n)
    return np.asarray(num_bytes, dtype=np.float64) * factor


def terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """The terms of the module's equation; ``work`` has ``bus_bytes``, ``gpus`` and the flag ``int8_reduction``."""
    further = np.maximum(work["gpus"] - 2, 0)
    volume = work["bus_bytes"] * (1 + constants["local"] / np.maximum(work["gpus"] - 1, 1))
    latency = constants["alpha"] + further * constants["step"]
    low = latency + volume / (constants["low_share"] * peaks.link_bytes_per_s)
    bulk = latency + constants["extra"] + volume / (constants["share"] * peaks.link_bytes_per_s)
    power = constants["sharpness"]
    fastest = np.minimum(low, bulk)
    whole = fastest * ((fastest / low) ** power + (fastest / bulk) ** power) ** (-1 / power)
    whole = whole * np.where(work["int8_reduction"] > 0, 1 + constants["int8"], 1.0)
    start = np.minimum(latency, whole)
    return {"latency": start, "link": whole - start}


FORM = Form("collective", CONSTANTS, terms)


def naive_seconds(work: Work, peaks: Peaks) -> Floats:
    """Bus bytes over the raw link."""
    return np.asarray(work["bus_bytes"] / peaks.link_bytes_per_s)
