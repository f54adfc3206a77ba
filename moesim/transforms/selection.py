"""Parts of a trace: some of its requests, tokens or layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.errors import TraceError
from moesim.traces.card import TraceCard
from moesim.traces.trace import Array, RoutingTrace


def select_requests(trace: RoutingTrace, ids: Sequence[int]) -> RoutingTrace:
    """The rows of some requests, in the given order.

    Raises:
        TraceError: no ids, one that the trace doesn't have, or one twice.
    """
    if not len(ids) or len(set(ids)) != len(ids):
        raise TraceError.of(trace.card.name, "needs at least one request to select, each once")
    rows = np.concatenate([np.arange(trace.num_tokens)[trace.rows_of(int(request))] for request in ids])
    return _at_rows(trace, rows, f"select_requests({len(ids)}: {_shown(ids)})")


def first_tokens(trace: RoutingTrace, count: int) -> RoutingTrace:
    """The first ``count`` tokens of every request (all of a shorter one).

    Raises:
        TraceError: ``count`` is less than 1.
    """
    if count < 1:
        raise TraceError.of(trace.card.name, f"can't be cut to {count} tokens per request")
    spans = [trace.rows_of(int(request)) for request in trace.request_ids]
    rows = np.concatenate([np.arange(span.start, min(span.stop, span.start + count)) for span in spans])
    return _at_rows(trace, rows, f"first_tokens(count={count})")


def select_layers(trace: RoutingTrace, layers: Sequence[int]) -> RoutingTrace:
    """Some of the MoE layers, ascending, counted from 0 as the trace's arrays count them.

    Raises:
        TraceError: no layers, not ascending, or one that the trace doesn't have.
    """
    source = np.asarray(layers, np.int64)
    if not len(source) or (np.diff(source) < 1).any() or source[0] < 0 or source[-1] >= trace.num_layers:
        told = f"has layers 0 to {trace.num_layers - 1}; select some of them, ascending"
        raise TraceError.of(trace.card.name, f"{told} (got {_shown(layers)})")
    sizes = trace.card.expert_bytes
    card = trace.card.derived(
        f"select_layers({len(source)}: {_shown(layers)})",
        moe_layer_indices=[trace.card.moe_layer_indices[layer] for layer in source],
        expert_bytes=None if sizes is None else [sizes[layer] for layer in source],
    )
    return at_layers(trace, source, card)


def at_layers(trace: RoutingTrace, source: Array, card: TraceCard) -> RoutingTrace:
    """A trace whose layer l is the source's layer ``source[l]``. ``source``: [new layers]

    A lookahead at layer l stays where layer l + d of the new trace is the source layer that it predicts; elsewhere, and
    past the last layer, there is none (``sentinel``).
    """
    lookahead = {}
    for distance, channel in trace.lookahead.items():
        lookahead[distance] = taken = channel[:, source]
        coherent = np.zeros(len(source), bool)
        coherent[: max(0, len(source) - distance)] = source[:-distance] + distance == source[distance:]
        taken[:, ~coherent] = trace.sentinel
    return replace(
        trace,
        card=card,
        experts=trace.experts[:, source],
        weights=None if trace.weights is None else trace.weights[:, source],
        lookahead=lookahead,
        recorded=None if trace.recorded is None else trace.recorded[:, source],
    )


def _at_rows(trace: RoutingTrace, rows: Array, transform: str) -> RoutingTrace:
    columns: dict[str, Any] = {name: array[rows] for name, array in trace.columns().items()}
    columns["lookahead"] = {distance: channel[rows] for distance, channel in trace.lookahead.items()}
    return replace(trace, card=trace.card.derived(transform), **columns)


def _shown(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
