"""Attention of one layer without its projections, bf16 queries, the requests of a step in one kernel.

Decode, one query per request over ``L_i = min(context_i, window)`` positions:
``t = launch + L' * per_position + items * per_item + (R^p + C^p)^(1/p)``

- ``R = (c kv E sum(L_i) + 2 n h Q) / (e_b B)``: keys and values (c bytes per element), queries and outputs.
- ``C = f kv ceil64(h/kv) sum(ceil64(L_i)) / (e_c F)``: kernels compute whole tiles of 64 by 64.
- ``items = ceil(n kv ceil(h/kv / 64) / SMs)`` rounds of blocks; ``L' = min(max L_i, 2048)``: longer ones are divided.

Prefill, ``s_i`` queries of each request after ``past_i`` positions that are already in the cache, causal:
``t = launch + L * per_position + b/SMs * per_item + (R^p + C^p)^(1/p)``

- ``R = (2 (h Q + kv E) sum(s_i) + c kv E sum(past_i)) / (e_b B)``: queries, outputs, keys and values.
- ``C = h f (pairs + 64 sum(s_i)) / (e_c F min(1, b/SMs))``: the (query, key) pairs and the masked half of the tiles on
  the diagonal, on ``b = h sum(ceil(s_i/128))`` blocks of 128 queries, at most one block per SM at a time.

n requests, h heads, kv of keys; of a :class:`HeadShape`: E elements of keys and values per position and KV head, Q of
query and output per head, f FLOP per (query, key) and head. Source of the constants: ``moesim.hardware.fits``; they
were fitted to requests of one length without a past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moesim.costs.fitted import Constant, Constants, Floats, Form, Peaks, Terms, Work, overlapped

#: What adds up over a step's requests, in a load; the rest are ``longest`` and the mean ``seq``.
DECODE_SUMS = ("batch", "keys", "key_tiles")
PREFILL_SUMS = ("batch", "queries", "past", "pairs", "query_blocks")
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


@dataclass(frozen=True)
class HeadShape:
    """Heads of one GPU, and what each needs.

    Attributes:
        heads, kv_heads: heads of queries; of keys and values.
        key_elements: elements of keys and values per position and KV head: 2 d, or the latent's width.
        io_elements: elements of query and output per head: 2 d.
        pair_flop: FLOP for one query, one key, one head: 4 d.
    """

    heads: float
    kv_heads: float
    key_elements: float
    io_elements: float
    pair_flop: float

    def work(self) -> dict[str, Floats]:
        """As forms take it; ``head_dim`` is the width of a head's keys."""
        return {name: np.asarray(value, dtype=np.float64) for name, value in vars(self).items()} | {
            "head_dim": np.asarray(self.pair_flop / 4)
        }


def decode_load(contexts: ArrayLike, window: float = 0) -> dict[str, Floats]:
    """What decoding requests ask of attention.

    Args:
        contexts: positions that each request's query sees, its own included; 0: no request. [..., requests]
        window: positions that the layer sees back; 0: all.
    """
    seen = _within(np.asarray(contexts, dtype=np.float64), window)
    requests, keys = (seen > 0).sum(axis=-1).astype(np.float64), seen.sum(axis=-1)
    return {
        "batch": requests,
        "seq": keys / np.maximum(requests, 1),
        "keys": keys,
        "key_tiles": _ceil(seen, _TILE).sum(axis=-1),
        "longest": seen.max(axis=-1, initial=0),
    }


def even_decode_load(requests: ArrayLike, seq: ArrayLike, window: ArrayLike = 0) -> dict[str, Floats]:
    """The same for requests of one length: all arguments broadcast, one entry for each step."""
    batch, length, near = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (requests, seq, window)))
    seen = _within(length, near)
    return {
        "batch": batch,
        "seq": length,
        "keys": batch * seen,
        "key_tiles": batch * _ceil(seen, _TILE),
        "longest": seen,
    }


def prefill_load(queries: ArrayLike, past: ArrayLike = 0, window: float = 0) -> dict[str, Floats]:
    """What prefilling requests ask of attention.

    Args:
        queries: new tokens of each request; 0: no request. [..., requests]
        past: positions of each that are already in the KV cache. [..., requests]
        window: positions that the layer sees back; 0: all.
    """
    new, before = np.broadcast_arrays(np.asarray(queries, dtype=np.float64), np.asarray(past, dtype=np.float64))
    before = np.where(new > 0, before, 0.0)
    requests, tokens = (new > 0).sum(axis=-1).astype(np.float64), new.sum(axis=-1)
    near = np.asarray(float(window))
    return {
        "batch": requests,
        "seq": tokens / np.maximum(requests, 1),
        "queries": tokens,
        "past": _within(before, window).sum(axis=-1),
        "pairs": (causal_pairs(before + new, near) - causal_pairs(before, near)).sum(axis=-1),
        "query_blocks": np.ceil(new / _QUERIES).sum(axis=-1),
        "longest": _within(np.where(new > 0, before + new, 0.0), window).max(axis=-1, initial=0),
    }


def even_prefill_load(requests: ArrayLike, seq: ArrayLike, window: ArrayLike = 0) -> dict[str, Floats]:
    """The same for requests of one length without a past: all arguments broadcast, one entry for each step."""
    batch, length, near = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (requests, seq, window)))
    return {
        "batch": batch,
        "seq": length,
        "queries": batch * length,
        "past": np.zeros(batch.shape),
        "pairs": batch * causal_pairs(length, near),
        "query_blocks": batch * np.ceil(length / _QUERIES),
        "longest": _within(length, near),
    }


def _ceil(value: Floats, tile: int) -> Floats:
    return np.asarray(np.ceil(value / tile) * tile)


def _within(length: Floats, window: Any) -> Floats:
    """Positions that a query sees: all, or the window's (0: none)."""
    return np.asarray(np.where(np.asarray(window) > 0, np.minimum(length, window), length))


def decode_terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """Decode; ``work`` is a :func:`decode_load` with a shape's :meth:`~HeadShape.work` and ``kv_bytes`` per element."""
    batch, heads, kv_heads = work["batch"], work["heads"], work["kv_heads"]
    group = heads / kv_heads
    num_bytes = work["kv_bytes"] * kv_heads * work["key_elements"] * work["keys"]
    num_bytes = num_bytes + 2 * batch * heads * work["io_elements"]
    flop = work["pair_flop"] * kv_heads * _ceil(group, _TILE) * work["key_tiles"]
    reads, compute = overlapped(
        num_bytes / (peaks.bytes_per_s * constants["bandwidth_share"]),
        flop / (peaks.flop_per_s * constants["arithmetic_share"]),
        constants["sharpness"],
    )
    items = np.ceil(batch * kv_heads * np.ceil(group / _TILE) / peaks.sms)
    walk = constants["per_item"] * items + constants["per_position"] * np.minimum(work["longest"], _UNDIVIDED)
    return _terms(constants["launch"], walk, reads, compute)


def causal_pairs(seq: Floats, window: Floats) -> Floats:
    """(query, key) pairs of a causal mask: ``s(s+1)/2``, or ``ws - w(w-1)/2`` with a window w < s."""
    near = np.where(window > 0, np.minimum(window, seq), seq)
    return np.asarray(near * seq - near * (near - 1) / 2)


def prefill_terms(work: Work, peaks: Peaks, constants: Constants) -> Terms:
    """Prefill; ``work`` is a :func:`prefill_load` with a shape's :meth:`~HeadShape.work` and ``kv_bytes``."""
    heads, queries = work["heads"], work["queries"]
    keys = work["kv_heads"] * work["key_elements"]
    blocks = heads * work["query_blocks"]
    pairs = work["pairs"] + queries * _QUERIES / 2
    busy = np.maximum(np.minimum(1, blocks / peaks.sms), 1e-9)
    num_bytes = 2 * queries * (heads * work["io_elements"] + keys) + work["kv_bytes"] * keys * work["past"]
    reads, compute = overlapped(
        num_bytes / (peaks.bytes_per_s * constants["bandwidth_share"]),
        heads * work["pair_flop"] * pairs / busy / (peaks.flop_per_s * constants["arithmetic_share"]),
        constants["sharpness"],
    )
    walk = constants["per_item"] * blocks / peaks.sms + constants["per_position"] * work["longest"]
    return _terms(constants["launch"], walk, reads, compute)


def _terms(launch_s: float, walk: Floats, reads: Floats, compute: Floats) -> Terms:
    return {
        "launch": np.full(reads.shape, launch_s),
        "blocks": np.broadcast_to(walk, reads.shape),
        "KV cache": reads,
        "arithmetic": compute,
    }


DECODE = Form("attention_decode", CONSTANTS, decode_terms)
PREFILL = Form("attention_prefill", CONSTANTS, prefill_terms)


def naive_seconds(work: Work, peaks: Peaks) -> Floats:
    """The plain roofline with the datasheet's peaks, for a decode load or a prefill load without a past."""
    decoding = "keys" in work
    queries, keys = (work["batch"], work["keys"]) if decoding else (work["queries"], work["batch"] * work["longest"])
    pairs = keys if decoding else work["pairs"]
    read = work["kv_bytes"] * work["kv_heads"] * work["key_elements"] * keys
    moved = read + 2 * queries * work["heads"] * work["io_elements"]
    return np.maximum(moved / peaks.bytes_per_s, work["heads"] * work["pair_flop"] * pairs / peaks.flop_per_s)
