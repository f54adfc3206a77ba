"""Is the content of a trace sound? Read in chunks, so that a memory-mapped trace of any size can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations

import numpy as np

from moesim.errors import Fault, TraceError
from moesim.traces.trace import DECODE, Array, RoutingTrace, forget, row_chunks

#: Says which elements of an array's rows are wrong: (the array, the rows) -> bool array, rows first.
Rule = Callable[[Array, slice], Array]


def check(trace: RoutingTrace, place: str = "") -> RoutingTrace:
    """The trace itself, when its content is sound; ``place`` (a file's name, say) starts each fault's place.

    Raises:
        TraceError: expert ids out of range or twice in one token's top-k; weights that are no numbers, negative, or
            given where there is no expert; a lookahead past the last layer; experts where nothing was recorded; a
            request whose rows stand apart or whose positions don't ascend; an unknown phase or domain. Each rule that
            is broken is told once, where it is broken first.
    """
    broken = [fault for rule in _rules(trace) if (fault := _first(trace, *rule))]
    broken += _scattered_requests(trace)
    if broken:
        raise TraceError(within(place, broken))
    return trace


def within(place: str, faults: Iterable[Fault]) -> list[Fault]:
    """The faults with ``place`` in front of the place of each."""
    return [Fault(f"{place}: {fault.place}" if place else fault.place, fault.message, fault.hint) for fault in faults]


def _rules(trace: RoutingTrace) -> Iterator[tuple[str, Rule, str, str]]:
    """Column, rule, message with the value that was found for ``{}``, hint."""
    experts, sentinel, size = trace.experts, trace.sentinel, trace.num_experts
    for name in ("experts", *(f"lookahead_{distance}" for distance in trace.lookahead)):
        told = f"{{}} is no expert: ids run from 0 to {size - 1}, {sentinel} is none"
        yield name, lambda ids, rows: (ids[rows] >= size) & (ids[rows] != sentinel), told, "is num_experts right?"
        yield name, lambda ids, rows: _repeated(ids[rows], sentinel), "expert {} stands twice in one token's top-k", ""
    for distance in trace.lookahead:
        past_last = _from_layer(trace.num_layers - distance, sentinel)
        yield f"lookahead_{distance}", past_last, "predicts {} for a layer past the last", f"write {sentinel} there"
    if trace.weights is not None:
        sound = "a gate weight is finite and not negative"
        yield "weights", lambda w, rows: ~(np.isfinite(w[rows]) & (w[rows] >= 0)), "{} is no gate weight", sound
        none = "is {} where there is no expert"
        yield "weights", lambda w, rows: (w[rows] != 0) & (experts[rows] == sentinel), none, "write 0 there"
    if (recorded := trace.recorded) is not None:
        told, hint = "expert {} stands where the source recorded nothing", f"write {sentinel} there"
        yield "experts", lambda ids, rows: (ids[rows] != sentinel) & ~recorded[rows][..., None], told, hint
    yield "phase", lambda phase, rows: phase[rows] > DECODE, "{} is no phase", "0 is prefill, 1 is decode"
    if trace.domain is not None:
        known = len(trace.card.domains)
        told = f"{{}} is no domain: the card lists {known}"
        yield "domain", lambda domain, rows: (domain[rows] < -1) | (domain[rows] >= known), told, "-1 means unknown"
    for name in ("request", "position", "step"):
        yield name, lambda column, rows: column[rows] < 0, "{} is negative", ""
    told = "{} does not ascend within its request"
    yield "position", lambda column, rows: _falls(column, trace.request, rows), told, ""


def _first(trace: RoutingTrace, name: str, rule: Rule, message: str, hint: str) -> Fault | None:
    """The first place where the rule is broken, if any."""
    column = trace.arrays().get(name)
    if column is None:
        return None
    for start, stop in row_chunks(len(column), column[:1].nbytes):
        wrong = rule(column, slice(start, stop))
        forget(column)
        if wrong.any():
            row, *inner = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
            index = (start + row, *inner)
            return Fault(f"{name}{list(index)}", message.format(column[index]), hint)
    return None


def _repeated(ids: Array, sentinel: int) -> Array:
    """Which slots hold an expert that an earlier slot of the same token and layer holds: bool, the shape of ``ids``."""
    slots = np.ascontiguousarray(np.moveaxis(ids, -1, 0))
    wrong = np.zeros(slots.shape, bool)
    for earlier, later in combinations(range(len(slots)), 2):
        wrong[later] |= slots[earlier] == slots[later]
    return np.moveaxis(wrong & (slots != sentinel), 0, -1)


def _from_layer(first: int, sentinel: int) -> Rule:
    """The rule that no expert stands from layer ``first`` on."""

    def wrong(ids: Array, rows: slice) -> Array:
        found = ids[rows] != sentinel
        found[:, : max(0, first)] = False
        return np.asarray(found)

    return wrong


def _falls(column: Array, request: Array, rows: slice) -> Array:
    """Which rows have the request of the row before and no larger value: bool [rows]."""
    before = slice(max(0, rows.start - 1), rows.stop - 1)
    after = slice(before.start + 1, rows.stop)
    wrong = (request[before] == request[after]) & (column[before] >= column[after])
    return np.concatenate([np.zeros(after.start - rows.start, bool), wrong])


def _scattered_requests(trace: RoutingTrace) -> Iterator[Fault]:
    ids, count = np.unique(trace.request_ids, return_counts=True)
    if (count > 1).any():
        request = int(ids[(count > 1).argmax()])
        told = f"the rows of request {request} don't stand together"
        yield Fault("request", told, "sort the rows by request, then position")
