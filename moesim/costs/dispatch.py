"""Expert-parallel dispatch and combine among the GPUs of one node, as DeepEP does them.

Normal kernels (throughput), on ``sms`` streaming multiprocessors:
``t = launch + (K^p + N^p)^(1/p)``

- ``K = T (H (1 + r R) + token) / (sms * per_sm)``: copying; every token is read once (H values) and written once for
  each of the R GPUs that hold one of its experts, at a relative cost r; ``token`` is bookkeeping, in values.
- ``N = T H R w (G-1)/G / (share L)``: w bytes per value over the link L; G GPUs.

Low-latency kernels: ``t = ((launch + experts * per_expert + H * per_value)^p + (T k H w / (share L))^p)^(1/p)``: one
message for each (token, expert), a counter polled for each expert.

T tokens of this GPU, k experts per token; with uniform routing over E experts ``R = G (1 - C(E - E/G, k) / C(E, k))``.
w = 1 in dispatch of low-latency kernels (fp8), else 2. Assumes one node. Source of the constants:
``moesim.hardware.fits``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moesim.costs.fitted import Constant, Constants, Floats, Form, Peaks, Terms, Work, overlapped

#: SMs that DeepEP's normal kernels use unless told otherwise.
DEFAULT_SMS = 20

NORMAL_CONSTANTS = (
    Constant("launch", "us", 30e-6, 5e-6, 100e-6, "the kernels without work"),
    Constant("per_sm", "1", 0.01, 1e-4, 1.0, "values copied per second and SM, as a share of the link's bytes"),
    Constant("write", "1", 0.3, 0.01, 10.0, "r: a write to one GPU, relative to a read"),
    Constant("token", "1", 300.0, 1.0, 100000.0, "bookkeeping of a token, in values"),
    Constant("share", "1", 0.7, 0.02, 1.0, "of the link's bandwidth"),
    Constant("sharpness", "1", 3.0, 1.0, 8.0, "p: how sharply copying and the link overlap"),
)
LOW_LATENCY_CONSTANTS = (
    Constant("launch", "us", 8e-6, 0.5e-6, 60e-6, "the kernels without work"),
    Constant("per_expert", "us", 1e-8, 1e-10, 1e-7, "a counter to poll"),
    Constant("per_value", "us", 2e-10, 1e-12, 3e-9, "latency of a row, for each of its values"),
    Constant("share", "1", 0.5, 0.02, 1.0, "of the link's bandwidth"),
    Constant("sharpness", "1", 1.5, 1.0, 8.0, "p: how sharply latency and the link overlap"),
)


def gpus_reached(experts: ArrayLike, topk: ArrayLike, gpus: ArrayLike) -> Floats:
    """Expected GPUs that hold one of k distinct experts out of E, dealt evenly over G: R of the module's equation."""
    total, chosen, ranks = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (experts, topk, gpus))
    )
    missed = np.ones(total.shape)
    for drawn in range(int(chosen.max(initial=0))):
        left = np.maximum(total - total / ranks - drawn, 0) / np.maximum(total - drawn, 1)
        missed = np.where(drawn < chosen, missed * left, missed)
    return np.asarray(ranks * (1 - missed))


def normal_terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """Normal kernels; ``work`` has ``tokens, hidden, reached`` (R), ``gpus, sms, value_bytes``."""
    tokens, hidden, reached = work["tokens"], work["hidden"], work["reached"]
    values = tokens * (hidden * (1 + constants["write"] * reached) + constants["token"])
    copying = values / (work["sms"] * constants["per_sm"] * peaks.link_bytes_per_s)
    sent = tokens * hidden * reached * work["value_bytes"] * (work["gpus"] - 1) / work["gpus"]
    copy_s, link_s = overlapped(copying, sent / (constants["share"] * peaks.link_bytes_per_s), constants["sharpness"])
    return {"launch": np.full(copy_s.shape, constants["launch"]), "copying": copy_s, "link": link_s}


def low_latency_terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """Low-latency kernels; ``work`` has ``tokens, hidden, topk, experts, value_bytes``."""
    start = constants["launch"] + constants["per_expert"] * work["experts"] + constants["per_value"] * work["hidden"]
    sent = work["tokens"] * work["topk"] * work["hidden"] * work["value_bytes"]
    start_s, link_s = overlapped(start, sent / (constants["share"] * peaks.link_bytes_per_s), constants["sharpness"])
    return {"launch": start_s, "link": link_s}


NORMAL = Form("dispatch_normal", NORMAL_CONSTANTS, normal_terms)
LOW_LATENCY = Form("dispatch_low_latency", LOW_LATENCY_CONSTANTS, low_latency_terms)


def naive_seconds(work: Work, peaks: Peaks) -> Floats:
    """A message for each (token, expert) over the raw link."""
    sent = work["tokens"] * work["topk"] * work["hidden"] * work["value_bytes"]
    return np.asarray(sent / peaks.link_bytes_per_s)
