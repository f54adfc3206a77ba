"""One fused MoE layer on one rank.

``t = launch + EL * per_expert + A / (e_b B) + (W^p + C^p)^(1/p)``

- ``W = tile_reads * miss * D * g H I * w / (e_b B)``: the weights of the D *distinct* experts that the rank's tokens
  chose, read once. A set that fits the L2 cache stays there between layers of a replayed CUDA graph:
  ``miss = 1 - hit * (1 - 1/L2_SPEEDUP)``, ``hit = 1 / (1 + (bytes / (L2_SHARE * L2))^4)``.
- ``C = steps (64-tile FLOP / (e_c F) + tile_step / SMs)``: the arithmetic of P (token, expert) pairs in
  ``steps = 2 P g H I / (2 64^3)`` steps of 64 x 64 x 64. Feeding a step to the tensor cores takes an SM ``tile_step``,
  whatever they can compute: so faster ones reach a smaller share of their peak.
- ``A = 2 (pair_passes * P (2H + g I) + output_passes * T k H)``: bf16 activations gathered, kept and summed; the output
  buffer has a row for every pair of the batch, also for those of other ranks.
- H hidden size, I the expert's width on this rank, g matrices per expert, w bytes per weight, EL experts of the rank,
  T tokens, k experts per token, B and F the datasheet's bandwidth and arithmetic, p how sharply W and C overlap.

Triton kernels without tuned tiles use two fixed tile sizes: a small one up to EL tokens; above it a large one that
reads weights ``tile_reads`` times as slowly, and either computes at ``untuned`` of the tuned rate (the rule stands in
``fused_moe`` of vLLM and SGLang). Widths that no 16 divides lose vector loads: W and C take ``1 + misaligned`` as long.

Assumes: tokens spread over tiles as over experts (no term for the hottest expert: its tail did not pay for itself in
cross-validation); no communication; CUDA graphs. Source of the constants: ``moesim.hardware.fits``.
"""

from __future__ import annotations

import numpy as np

from moesim.costs.fitted import Constant, Constants, Floats, Form, Peaks, Terms, Work, overlapped

#: FLOP of a step of 64 x 64 x 64.
STEP_FLOP = 2 * 64**3
L2_SHARE = 0.65
L2_SPEEDUP = 3.0

CONSTANTS = (
    Constant("launch", "us", 15e-6, 0.5e-6, 100e-6, "all kernels of the layer, without work"),
    Constant("per_expert", "us", 0.02e-6, 1e-10, 1e-6, "bookkeeping for each expert that the rank holds"),
    Constant("bandwidth_share", "1", 0.9, 0.1, 1.0, "e_b: of the datasheet's bandwidth"),
    Constant("arithmetic_share", "1", 0.65, 0.05, 1.0, "e_c: of the datasheet's arithmetic"),
    Constant("tile_step", "us", 0.03e-6, 1e-10, 1e-6, "feeding an SM with 64 x 64 x 64 multiply-adds"),
    Constant("sharpness", "1", 1.4, 1.0, 6.0, "p: 1 reads, then computes; large overlaps both"),
    Constant("pair_passes", "1", 1.5, 0.01, 8.0, "times that a pair's activations cross memory"),
    Constant("output_passes", "1", 0.3, 0.01, 8.0, "times that all pairs' outputs cross memory"),
    Constant("tile_reads", "1", 1.4, 1.0, 2.5, "slower reads with the large untuned tile"),
    Constant("untuned", "1", 0.45, 0.2, 1.0, "arithmetic with untuned tiles, of the tuned"),
    Constant("misaligned", "1", 1.3, 0.01, 4.0, "extra time of widths that 16 doesn't divide"),
)


def l2_miss(num_bytes: Floats, l2_bytes: float) -> Floats:
    """Share of HBM time that a working set takes when it is read again and again (see the module)."""
    if l2_bytes <= 0:
        return np.ones_like(num_bytes)
    hit = 1 / (1 + (num_bytes / (L2_SHARE * l2_bytes)) ** 4)
    return 1 - hit * (1 - 1 / L2_SPEEDUP)


def terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """The terms of the module's equation.

    Args:
        work: arrays that broadcast: ``tokens, topk, hidden, width, matrices, local_experts, pairs, distinct,
            weight_bytes`` (per weight), and flags 0/1 ``untuned`` (fixed tiles) and ``unpadded`` (kernel that needs
            aligned widths).
    """
    hidden, width, matrices = work["hidden"], work["width"], work["matrices"]
    bandwidth = peaks.bytes_per_s * constants["bandwidth_share"]
    weight_bytes = work["distinct"] * matrices * hidden * width * work["weight_bytes"]
    untuned = work["untuned"] > 0
    large_tile = untuned & (work["tokens"] > work["local_experts"])
    reads = weight_bytes / bandwidth * l2_miss(weight_bytes, peaks.l2_bytes)
    reads = reads * np.where(large_tile, constants["tile_reads"], 1.0)
    per_flop = 1 / (peaks.flop_per_s * constants["arithmetic_share"])
    per_flop = per_flop + constants["tile_step"] / (STEP_FLOP * peaks.sms)
    slow = np.where(untuned, 1 / constants["untuned"], 1.0)
    arithmetic = 2 * work["pairs"] * matrices * hidden * width * per_flop * slow
    lost = np.where((work["unpadded"] > 0) & (width % 16 != 0), 1 + constants["misaligned"], 1.0)
    reads_s, arithmetic_s = overlapped(lost * reads, lost * arithmetic, constants["sharpness"])
    gathered = constants["pair_passes"] * work["pairs"] * (2 * hidden + matrices * width)
    summed = constants["output_passes"] * work["tokens"] * work["topk"] * hidden
    return {
        "launch": np.full(reads_s.shape, constants["launch"]),
        "experts held": np.broadcast_to(constants["per_expert"] * work["local_experts"], reads_s.shape),
        "expert weights": reads_s,
        "arithmetic": arithmetic_s,
        "activations": np.broadcast_to(2 * (gathered + summed) / bandwidth, reads_s.shape),
    }


FORM = Form("moe_layer", CONSTANTS, terms)


def naive_seconds(work: Work, peaks: Peaks, experts: Floats) -> Floats:
    """The plain roofline over ``experts`` experts: ``max(bytes / B, FLOP / F)`` with the datasheet's B and F."""
    size = work["matrices"] * work["hidden"] * work["width"]
    reads = experts * size * work["weight_bytes"] / peaks.bytes_per_s
    return np.maximum(reads, 2 * work["pairs"] * size / peaks.flop_per_s)


def uniform_distinct(work: Work) -> Floats:
    """Expected distinct experts of a rank if every token chose k of E at random: ``EL (1 - (1 - k/E)^T)``."""
    local = work["local_experts"]
    return local * (1 - (1 - np.minimum(work["topk"] / (local * work["ranks"]), 1.0)) ** work["tokens"])
