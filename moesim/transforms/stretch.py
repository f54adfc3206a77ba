"""Requests of wanted lengths out of a trace's own: what a trace of short requests says about longer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.traces.trace import DECODE, PREFILL, RoutingTrace

Ints = NDArray[np.int64]


def stretch(
    trace: RoutingTrace, prompts: Sequence[int], outputs: Sequence[int], sources: Sequence[int]
) -> RoutingTrace:
    """Request i follows the trace's request number ``sources[i]`` (counted from 0, in the trace's order).

    It has ``prompts[i]`` prompt tokens, and decodes ``outputs[i] - 1`` (the first output token comes from the prompt).
    Prompt tokens take prompt rows and output tokens decode rows; one that is longer than its source goes on with the
    next request of the same domain, round and round. Where the trace lacks a phase, the other one's rows stand in.

    Raises:
        TraceError: no request, one without a prompt or an output token, or one that the trace does not have.
    """
    ids = trace.request_ids.tolist()
    if not len(prompts) or min(prompts) < 1 or min(outputs) < 1 or max(sources) >= len(ids):
        told = f"can't be stretched to {len(prompts)} requests of at least one prompt and one output token"
        raise TraceError.of(trace.card.name, told)
    prefill, decode = _Ring(trace, PREFILL), _Ring(trace, DECODE)
    parts = [
        (prefill.rows(source, prompt), decode.rows(source, output - 1))
        for prompt, output, source in zip(prompts, outputs, sources, strict=True)
    ]
    rows = np.concatenate([row for part in parts for row in part])
    sizes = [len(part) for pair in parts for part in pair]
    columns: dict[str, Any] = {name: array[rows] for name, array in trace.columns().items()}
    columns["lookahead"] = {distance: channel[rows] for distance, channel in trace.lookahead.items()}
    columns["request"] = np.repeat(np.arange(len(parts), dtype=np.int32), [len(a) + len(b) for a, b in parts])
    columns["position"] = np.concatenate([np.arange(len(a) + len(b), dtype=np.int32) for a, b in parts])
    columns["phase"] = np.repeat(np.array([PREFILL, DECODE] * len(parts), dtype=np.uint8), sizes)
    for lost in ("step", "token_id"):
        columns.pop(lost, None)
    card = trace.card.derived(f"stretch({len(parts)} requests, {len(rows)} tokens)")
    return replace(trace, card=card, step=None, token_id=None, **columns)


class _Ring:
    """The rows of one phase, domain by domain, and where each request starts."""

    def __init__(self, trace: RoutingTrace, phase: int):
        there = np.asarray(trace.phase) == phase
        self._present = there if there.any() else np.ones(trace.num_tokens, dtype=bool)
        self._spans = [trace.rows_of(request) for request in trace.request_ids.tolist()]
        domain = np.zeros(trace.num_tokens) if trace.domain is None else np.asarray(trace.domain)
        self._domain = [int(domain[span.start]) for span in self._spans]

    def rows(self, source: int, count: int) -> Ints:
        """So many rows from a request on."""
        ring, start = self._of(self._domain[source], source)
        return np.asarray(ring[(start + np.arange(count)) % len(ring)])

    def _of(self, domain: int, source: int) -> tuple[Ints, int]:
        """The domain's rows (all, where it has none of this phase), and where the request's begin in them."""
        members = [number for number, own in enumerate(self._domain) if own == domain]
        rows = [self._own(number) for number in members]
        if not sum(map(len, rows)):
            return np.flatnonzero(self._present), 0
        return np.concatenate(rows), sum(
            len(part) for part, number in zip(rows, members, strict=True) if number < source
        )

    def _own(self, number: int) -> Ints:
        span = self._spans[number]
        return np.asarray(span.start + np.flatnonzero(self._present[span]))
