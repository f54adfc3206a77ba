"""Collectives among n GPUs of one node (NCCL, custom all-reduces), and point to point.

``t = (t_1^-p + t_2^-p)^(-1/p) * [1 + int8]``, the faster of two protocols with a soft change between them:

- ``t_1 = start + V' / (low_share L)``: the low-latency protocol, which spends bandwidth on flags.
- ``t_2 = start + extra + V' / (share L)``: the bulk protocol.
- ``start = (alpha + (n-2) step) (1 + growth log2(1 + V / 1 KiB))``: larger messages start more blocks and channels.
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

#: p: how sharply one protocol gives way to the other. Fitted for each GPU, it did not pay in cross-validation.
SHARPNESS = 3.0
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv")

CONSTANTS = (
    Constant("alpha", "us", 5e-6, 1e-6, 100e-6, "two GPUs and no bytes"),
    Constant("step", "us", 1e-6, 1e-9, 20e-6, "each further GPU"),
    Constant("low_share", "1", 0.2, 0.01, 1.0, "of the link's bandwidth, low-latency protocol"),
    Constant("extra", "us", 5e-6, 1e-8, 100e-6, "what the bulk protocol needs more"),
    Constant("local", "1", 0.5, 0.01, 4.0, "a GPU's own part, relative to sending it"),
    Constant("share", "1", 0.75, 0.01, 1.0, "of the link's bandwidth, bulk protocol"),
    Constant("growth", "1", 0.03, 1e-4, 0.5, "of the start, with each doubling of the bytes above 1 KiB"),
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
    doublings = np.log2(1 + work["bus_bytes"] / 1024)
    latency = (constants["alpha"] + further * constants["step"]) * (1 + constants["growth"] * doublings)
    low = latency + volume / (constants["low_share"] * peaks.link_bytes_per_s)
    bulk = latency + constants["extra"] + volume / (constants["share"] * peaks.link_bytes_per_s)
    fastest = np.minimum(low, bulk)
    whole = fastest * ((fastest / low) ** SHARPNESS + (fastest / bulk) ** SHARPNESS) ** (-1 / SHARPNESS)
    whole = whole * np.where(work["int8_reduction"] > 0, 1 + constants["int8"], 1.0)
    start = np.minimum(latency, whole)
    return {"latency": start, "link": whole - start}


FORM = Form("collective", CONSTANTS, terms)


def naive_seconds(work: Work, peaks: Peaks) -> Floats:
    """Bus bytes over the raw link."""
    return np.asarray(work["bus_bytes"] / peaks.link_bytes_per_s)
