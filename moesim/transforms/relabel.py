"""Routing over other experts: some pruned away, or several merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.errors import TraceError
from moesim.traces.trace import Array, RoutingTrace, expert_dtype, sentinel_of


def prune(trace: RoutingTrace, kept: Sequence[Sequence[int]]) -> RoutingTrace:
    """Only the experts ``kept`` [layers][n] remain, renumbered in that order; equally many in each layer.

    A token that used another expert goes without: which one a pruned model would use instead, no trace says. Its
    remaining gate weights are scaled to the sum that they had before (where any remain).

    Raises:
        TraceError: not one list for each layer, lists of different lengths, or an expert twice or out of range.
    """
    sets = [sorted(set(one)) for one in kept]
    wrong = any(len(one) != len(given) or not one for one, given in zip(sets, kept, strict=True))
    if wrong or len(sets) != trace.num_layers or len({len(one) for one in kept}) > 1:
        told = f"needs one list of experts for each of {trace.num_layers} layers, equally long, each expert once"
        raise TraceError.of(trace.card.name, told)
    if any(one[0] < 0 or one[-1] >= trace.num_experts for one in sets):
        raise TraceError.of(trace.card.name, f"has experts 0 to {trace.num_experts - 1} in each layer")
    table = np.full((trace.num_layers, trace.num_experts), -1, np.int64)
    for layer, experts in enumerate(kept):
        table[layer, np.asarray(experts)] = np.arange(len(experts))
    pruned = _relabelled(trace, table, len(kept[0]), f"prune(kept={len(kept[0])} of {trace.num_experts})")
    if trace.weights is None or pruned.weights is None:
        return pruned
    return replace(pruned, weights=rescaled(pruned.weights, trace.weights))


def merge(trace: RoutingTrace, groups: Array) -> RoutingTrace:
    """Expert e of layer l becomes expert ``groups[l, e]``; a token that used several of a group uses it once.

    ``groups``: [layers, num_experts], numbered from 0 without gaps over all layers. Gate weights of merged experts add
    up. Sizes are left out: what a merged expert weighs depends on how it was merged.

    Raises:
        TraceError: another shape, or numbers that are not from 0 on without gaps.
    """
    groups = np.asarray(groups)
    if groups.shape != (trace.num_layers, trace.num_experts) or groups.dtype.kind not in "iu":
        told = f"needs a group for each expert, integers [{trace.num_layers}, {trace.num_experts}]"
        raise TraceError.of(trace.card.name, f"{told} (got {groups.dtype} {list(groups.shape)})")
    named = np.unique(groups)
    if not np.array_equal(named, np.arange(len(named))):
        raise TraceError.of(trace.card.name, "needs groups numbered from 0 without gaps")
    transform = f"merge({trace.num_experts} into {len(named)})"
    return _relabelled(trace, groups.astype(np.int64), len(named), transform, expert_bytes=None)


def rescaled(weights: Array, before: Array) -> Array:
    """The weights, each token's scaled to the sum that it had before. [tokens, layers, top_k] each"""
    total, wanted = (one.sum(axis=-1, keepdims=True, dtype=np.float64) for one in (weights, before))
    factor = np.divide(wanted, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray((weights * factor).astype(np.float16))


def packed(ids: Array, weights: Array | None, sentinel: int) -> tuple[Array, Array | None]:
    """Slots without an expert last, the others in the order that they had. [tokens, layers, top_k] each"""
    order = np.argsort(ids == sentinel, axis=-1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=-1)
    return ids, None if weights is None else np.take_along_axis(weights, order, axis=-1)


def _relabelled(trace: RoutingTrace, table: Array, num_experts: int, transform: str, **card: Any) -> RoutingTrace:
    """Every id through ``table`` [layers, old experts] (-1 = dropped); of equal new ids of a token the first stays."""
    layers = np.arange(trace.num_layers)
    experts, weights = _mapped(trace, trace.experts, trace.weights, table, layers, num_experts)
    lookahead = {}
    for distance, channel in trace.lookahead.items():
        target = np.minimum(layers + distance, trace.num_layers - 1)  # what a channel names are experts of layer l + d
        lookahead[distance] = _mapped(trace, channel, None, table, target, num_experts)[0]
    changes = {"num_experts": num_experts, "top_k": min(trace.top_k, num_experts), **card}
    return replace(
        trace,
        card=trace.card.derived(transform, **changes),
        experts=experts,
        weights=weights,
        lookahead=lookahead,
    )


def _mapped(
    trace: RoutingTrace, ids: Array, weights: Array | None, table: Array, layer: Array, num_experts: int
) -> tuple[Array, Array | None]:
    dtype = expert_dtype(num_experts)
    sentinel = sentinel_of(dtype)
    present = ids != trace.sentinel
    new = np.where(present, table[layer[:, None], np.where(present, ids, 0)], -1)
    sums = None if weights is None else np.where(new >= 0, weights, 0).astype(np.float64)
    for slot in range(1, new.shape[-1]):
        for earlier in range(slot):
            same = (new[..., slot] == new[..., earlier]) & (new[..., slot] >= 0)
            if sums is not None:
                sums[..., earlier] += np.where(same, sums[..., slot], 0)
                sums[..., slot] = np.where(same, 0, sums[..., slot])
            new[..., slot] = np.where(same, -1, new[..., slot])
    kept = np.where(new >= 0, new, sentinel).astype(dtype)
    kept, sums = packed(kept, sums, sentinel)
    slots = min(new.shape[-1], num_experts)
    return kept[..., :slots], None if sums is None else sums[..., :slots].astype(np.float16)
