"""Fewer experts where the gate is sure: dynamic top-p, and null experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moesim.errors import TraceError
from moesim.traces.trace import Array, RoutingTrace
from moesim.transforms.relabel import packed, rescaled


def dynamic_top_p(trace: RoutingTrace, p: float) -> RoutingTrace:
    """Each token keeps its heaviest experts until they hold a share ``p`` of its gate weights in a layer; at least one.

    The weights of those that stay are scaled to the sum of all. Lookahead channels stay as they are: the predictor
    doesn't know the gate's weights.

    Raises:
        TraceError: the trace has no weights, or p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise TraceError.of(trace.card.name, f"needs a share p above 0 and up to 1 (got {p})")
    weights = _weights(trace)
    order = np.argsort(-weights, axis=-1, kind="stable")
    sorted_weights = np.take_along_axis(weights, order, axis=-1)
    held_before = np.cumsum(sorted_weights, axis=-1) - sorted_weights
    enough = held_before >= p * sorted_weights.sum(axis=-1, keepdims=True) - 1e-6
    enough[..., 0] = False
    dropped = np.empty_like(enough)
    np.put_along_axis(dropped, order, enough, axis=-1)
    return _without(trace, dropped, f"dynamic_top_p(p={p})", rescale=True)


def null_experts(trace: RoutingTrace, below: float) -> RoutingTrace:
    """Experts with less than a share ``below`` of the token's gate weights in the layer become null experts: no work.

    A null expert keeps its share, so the weights of the others stay as they are. A token may be left without experts.

    Raises:
        TraceError: the trace has no weights, or ``below`` is not in [0, 1].
    """
    if not 0 <= below <= 1:
        raise TraceError.of(trace.card.name, f"needs a share from 0 to 1 (got {below})")
    weights = _weights(trace)
    return _without(trace, weights < below * weights.sum(axis=-1, keepdims=True), f"null_experts(below={below})")


def _weights(trace: RoutingTrace) -> Array:
    if trace.weights is None:
        raise TraceError.of(trace.card.name, "has no gate weights to go by")
    return np.asarray(trace.weights, np.float64)


def _without(trace: RoutingTrace, dropped: Array, transform: str, rescale: bool = False) -> RoutingTrace:
    """The trace without some activations. ``dropped``: bool, the shape of ``experts``"""
    before = _weights(trace)
    weights = np.where(dropped, 0, before).astype(np.float16)
    if rescale:
        weights = rescaled(weights, before)
    experts = np.where(dropped, trace.sentinel, trace.experts).astype(trace.experts.dtype)
    experts, packed_weights = packed(experts, weights, trace.sentinel)
    return replace(trace, card=trace.card.derived(transform), experts=experts, weights=packed_weights)
