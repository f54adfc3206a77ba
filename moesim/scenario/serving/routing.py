"""Which experts a request's tokens use: rows of a trace, by request, never tokens on their own.

A request draws a request of the trace and follows it, prompt on prompt rows and output on output rows. One that is
longer goes on with the next request of the same domain. Layers that repeat each other (a stand-in's) are kept once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.setup.serving import WORD_BITS, Routing
from moesim.traces import RoutingTrace
from moesim.traces.trace import DECODE, PREFILL

Ints = NDArray[np.int64]
#: A trace's rows beyond this much memory are left out, and that is said.
MOST_BYTES = 400 * 2**20


@dataclass(frozen=True)
class Routed:
    """A routing, how many of the model's layers each of its layers stands for, and what is to be said about it."""

    routing: Routing
    layers: NDArray[np.float64]
    sources: int
    warnings: tuple[str, ...]


def unrouted() -> Routed:
    """For models without experts."""
    none, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    empty = np.zeros((1, 0, 1), dtype=np.int64)
    routing = Routing(empty, empty, np.ones((1, 1), np.int64), none, none, one, none, none, one, empty)
    return Routed(routing, np.zeros(0), 0, ())


@lru_cache(maxsize=2)
def routed(trace: RoutingTrace, ranks: int) -> Routed:
    """The routing of a trace for so many ranks, each of which holds a block of consecutive experts."""
    warnings = []
    layers, repeats = _distinct_layers(trace)
    words = -(-trace.num_experts // WORD_BITS)
    most = MOST_BYTES // (8 * len(layers) * (words + (ranks if ranks > 1 else 0)))
    requests = trace.request_ids.tolist()
    ends = np.cumsum([trace.rows_of(request).stop - trace.rows_of(request).start for request in requests])
    kept = max(1, int(np.searchsorted(ends, most, side="right")))
    if kept < len(requests):
        warnings.append(f"routing: drawn from the trace's first {kept} of {len(requests)} requests, to bound memory")
    rows = np.arange(ends[kept - 1])
    phase = np.asarray(trace.phase)[rows]
    absent = {PREFILL: "prefill", DECODE: "decode"}
    for missing, name in absent.items():
        if not (phase == missing).any():
            warnings.append(f"routing: the trace has no {name} rows; those of the other phase stand for them")
            phase = np.full(len(phase), DECODE if missing == PREFILL else PREFILL, dtype=phase.dtype)
    prompts = _Group.of(trace, requests[:kept], phase, PREFILL, 0)
    outputs = _Group.of(trace, requests[:kept], phase, DECODE, len(prompts.rows))
    order = np.concatenate([prompts.rows, outputs.rows])
    experts = np.asarray(trace.experts)[order][:, layers].astype(np.int64)
    routing = Routing(
        mask=_masks(experts, trace.num_experts, words),
        pairs=_pairs(experts, trace.num_experts, ranks),
        ranks=_rank_masks(trace.num_experts, ranks, words),
        prompt_start=prompts.start,
        prompt_low=prompts.low,
        prompt_high=prompts.high,
        output_start=outputs.start,
        output_low=outputs.low,
        output_high=outputs.high,
        liked=_liked(trace, requests[:kept], phase, layers, words),
    )
    return Routed(routing, repeats, kept, tuple(warnings))


def _distinct_layers(trace: RoutingTrace) -> tuple[list[int], NDArray[np.float64]]:
    """Layers that no earlier one equals, and how often each occurs."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    count: list[float] = []
    for layer in range(trace.num_layers):
        key = np.ascontiguousarray(trace.experts[:, layer]).tobytes()
        if key in seen:
            count[seen[key]] += 1
        else:
            seen[key] = len(first)
            first.append(layer)
            count.append(1.0)
    return first, np.array(count)


@dataclass(frozen=True)
class _Group:
    """Rows of one phase, domain by domain; where each request starts, and its domain's first and last place."""

    rows: Ints
    start: Ints
    low: Ints
    high: Ints

    @classmethod
    def of(cls, trace: RoutingTrace, requests: list[int], phase: NDArray[np.uint8], wanted: int, offset: int) -> _Group:
        """Of requests, in the order in which they are drawn; one without a row starts where the next one does."""
        present = wanted if (phase == wanted).any() else DECODE if wanted == PREFILL else PREFILL
        domain = (
            np.zeros(len(phase), dtype=np.int64) if trace.domain is None else np.asarray(trace.domain)[: len(phase)]
        )
        spans = [trace.rows_of(request) for request in requests]
        of_request = [int(domain[span.start]) for span in spans]
        start = np.zeros(len(requests), dtype=np.int64)
        low, high = start.copy(), start.copy()
        parts: list[Ints] = []
        place = offset
        for name in sorted(set(of_request)):
            first = place
            members = [number for number, own in enumerate(of_request) if own == name]
            for number in members:
                span = spans[number]
                rows = np.arange(span.start, span.stop)[phase[span.start : span.stop] == present]
                parts.append(rows)
                start[number] = place
                place += len(rows)
            if place == first:  # a domain without a row of this phase goes round all of them
                first, place = offset, place
            low[members], high[members] = first, place
        rows = np.concatenate(parts)
        empty = high <= low
        low[empty], high[empty] = offset, offset + len(rows)
        start = np.where(start >= high, low, start)
        return cls(rows, start, low, high)


def _masks(experts: Ints, num_experts: int, words: int) -> Ints:
    """One bit for each expert. [rows, layers, words]"""
    mask = np.zeros((*experts.shape[:2], words), dtype=np.int64)
    for slot in range(experts.shape[2]):
        chosen = experts[:, :, slot]
        there = chosen < num_experts
        word = np.where(there, chosen // WORD_BITS, 0)[..., None]
        bit = np.where(there, np.int64(1) << (chosen % WORD_BITS), 0)[..., None]
        np.put_along_axis(mask, word, np.take_along_axis(mask, word, axis=2) | bit, axis=2)
    return mask


def _liked(trace: RoutingTrace, requests: list[int], phase: NDArray[np.uint8], layers: list[int], words: int) -> Ints:
    """The experts that each request's output uses most, so many as a token uses. [requests, layers, words]"""
    found = np.zeros((len(requests), len(layers), trace.top_k), dtype=np.int64)
    for number, request in enumerate(requests):
        span = trace.rows_of(request)
        own = np.asarray(trace.experts[span])[phase[span] == DECODE]
        for place, layer in enumerate(layers):
            uses = np.bincount(own[:, layer].ravel(), minlength=trace.num_experts)[: trace.num_experts]
            found[number, place] = np.argsort(-uses, kind="stable")[: trace.top_k]
    return _masks(found, trace.num_experts, words)


def _pairs(experts: Ints, num_experts: int, ranks: int) -> Ints:
    """How many of a row's experts lie on each rank; nothing for one rank. [rows, layers, ranks]"""
    if ranks == 1:
        return np.zeros((1, 1, 1), dtype=np.int64)
    owner = np.where(experts < num_experts, experts // (num_experts // ranks), -1)
    return np.stack([(owner == rank).sum(axis=2) for rank in range(ranks)], axis=2).astype(np.int64)


def _rank_masks(num_experts: int, ranks: int, words: int) -> Ints:
    """The experts of each rank. [ranks, words]"""
    mask = np.zeros((ranks, words), dtype=np.int64)
    for expert in range(num_experts):
        mask[expert // (num_experts // ranks), expert // WORD_BITS] |= 1 << (expert % WORD_BITS)
    return mask
