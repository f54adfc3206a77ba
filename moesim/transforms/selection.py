"""Parts of a trace: some of its requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.errors import TraceError
from moesim.traces.trace import RoutingTrace


def select_requests(trace: RoutingTrace, ids: Sequence[int]) -> RoutingTrace:
    """The rows of some requests, in the given order.

    Raises:
        TraceError: no ids, one that the trace doesn't have, or one twice.
    """
    if not len(ids) or len(set(ids)) != len(ids):
        raise TraceError.of(trace.card.name, "needs at least one request to select, each once")
    rows = np.concatenate([np.arange(trace.num_tokens)[trace.rows_of(int(request))] for request in ids])
    shown = ", ".join(str(request) for request in ids[:8]) + (", ..." if len(ids) > 8 else "")
    columns: dict[str, Any] = {name: array[rows] for name, array in trace.columns().items()}
    columns["lookahead"] = {distance: channel[rows] for distance, channel in trace.lookahead.items()}
    return replace(trace, card=trace.card.derived(f"select_requests({len(ids)}: {shown})"), **columns)
