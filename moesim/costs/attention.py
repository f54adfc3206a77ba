"""Attention of one layer without its projections, bf16 queries, one request per sequence of the batch.

Decode, one query per sequence over ``L = min(seq, window)`` positions:
``t = launch + L' * per_position + items * per_item + (R^p + C^p)^(1/p)``

- ``R = (2 b kv L d c + 4 b h d) / (e_b B)``: keys and values (c bytes per element), queries and outputs.
- ``C = 4 b kv d ceil64(h/kv) ceil64(L) / (e_c F)``: kernels compute whole tiles of 64 by 64.
- ``items = ceil(b kv ceil(h/kv / 64) / SMs)`` rounds of blocks; ``L' = min(L, 2048)``: longer ones are divided.

Prefill, ``seq`` queries per sequence, causal:
``t = launch + L * per_position + n/SMs * per_item + (R^p + C^p)^(1/p)``

- ``R = 4 b s d (h + kv) / (e_b B)``: queries, outputs, keys and values.
- ``C = 4 b h d (pairs + 64 s) / (e_c F min(1, n/SMs))``: the (query, key) pairs and the masked half of the tiles on the
  diagonal, on ``n = b h ceil(s/128)`` blocks of 128 queries, at most one block per SM at a time.

Assumes no prefix, no cascade. MLA prices as one KV head of its latent width. Source of the constants:
``moesim.hardware.fits``.
"""

from __future__ import annotations

import numpy as np

from moesim.costs.fitted import Constant, Constants, Floats, Form, Peaks, Terms, Work, overlapped

_TILE = 64
_QUERIES = 128
_UNDIVIDED = 2048

CONSTANTS = (
    Constant("launch", "us", 8e-6, 0.5e-6, 60e-6, "the kernel without work"),
    Constant("bandwidth_share", "1", 0.8, 0.02, 1.0, "e_b: of the datasheet's bandwidth"),
    Constant("arithmetic_share", "1", 0.5, 0.01, 1.0, "e_c: of the datasheet's arithmetic"),
    Constant("sharpness", "1", 2.0, 1.0, 8.0, "p: how sharply reading and computing overlap"),
    Constant("per_item", "us", 0.5e-6, 1e-9, 20e-6, "a block's start and end"),
    Constant("per_position", "us", 2e-9, 1e-12, 2e-7, "a block's step along the context"),
)


def _ceil(value: Floats, tile: int) -> Floats:
    return np.asarray(np.ceil(value / tile) * tile)


def _seen(work: Work) -> Floats:
    """Positions that the last query sees: all, or the window's."""
    return np.asarray(np.where(work["window"] > 0, np.minimum(work["seq"], work["window"]), work["seq"]))


def decode_terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """Decode; ``work`` has ``batch, seq, heads, kv_heads, head_dim, window`` (0: none), ``kv_bytes`` per element."""
    batch, heads, kv_heads, dim = work["batch"], work["heads"], work["kv_heads"], work["head_dim"]
    seen, group = _seen(work), work["heads"] / work["kv_heads"]
    num_bytes = 2 * batch * kv_heads * seen * dim * work["kv_bytes"] + 4 * batch * heads * dim
    flop = 4 * batch * kv_heads * dim * _ceil(group, _TILE) * _ceil(seen, _TILE)
    reads, compute = overlapped(
        num_bytes / (peaks.bytes_per_s * constants["bandwidth_share"]),
        flop / (peaks.flop_per_s * constants["arithmetic_share"]),
        constants["sharpness"],
    )
    items = np.ceil(batch * kv_heads * np.ceil(group / _TILE) / peaks.sms)
    walk = constants["per_item"] * items + constants["per_position"] * np.minimum(seen, _UNDIVIDED)
    return {
        "launch": np.full(reads.shape, constants["launch"]),
        "blocks": walk,
        "KV cache": reads,
        "arithmetic": compute,
    }


def causal_pairs(seq: Floats, window: Floats) -> Floats:
    """(query, key) pairs of a causal mask: ``s(s+1)/2``, or ``ws - w(w-1)/2`` with a window w < s."""
    near = np.where(window > 0, np.minimum(window, seq), seq)
    return np.asarray(near * seq - near * (near - 1) / 2)


def prefill_terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """Prefill; ``work`` as in :func:`decode_terms`."""
    batch, heads, kv_heads, dim = work["batch"], work["heads"], work["kv_heads"], work["head_dim"]
    seq = work["seq"]
    blocks = batch * heads * np.ceil(seq / _QUERIES)
    pairs = causal_pairs(seq, work["window"]) + seq * _QUERIES / 2
    flop = 4 * batch * heads * dim * pairs / np.minimum(1, blocks / peaks.sms)
    reads, compute = overlapped(
        4 * batch * seq * dim * (heads + kv_heads) / (peaks.bytes_per_s * constants["bandwidth_share"]),
        flop / (peaks.flop_per_s * constants["arithmetic_share"]),
        constants["sharpness"],
    )
    walk = constants["per_item"] * blocks / peaks.sms + constants["per_position"] * _seen(work)
    return {
        "launch": np.full(reads.shape, constants["launch"]),
        "blocks": walk,
        "KV cache": reads,
        "arithmetic": compute,
    }


DECODE = Form("attention_decode", CONSTANTS, decode_terms)
PREFILL = Form("attention_prefill", CONSTANTS, prefill_terms)


def naive_seconds(work: Work, peaks: Peaks, queries: Floats) -> Floats:
    """The plain roofline with the datasheet's peaks; ``queries`` per sequence (1 in decode, seq in prefill)."""
    batch, heads, kv_heads, dim = work["batch"], work["heads"], work["kv_heads"], work["head_dim"]
    pairs = np.where(queries > 1, causal_pairs(work["seq"], work["window"]), _seen(work))
    num_bytes = 2 * batch * kv_heads * _seen(work) * dim * work["kv_bytes"] + 4 * batch * heads * dim * queries
    return np.maximum(num_bytes / peaks.bytes_per_s, 4 * batch * heads * pairs * dim / peaks.flop_per_s)
