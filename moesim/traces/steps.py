"""Which tokens of a trace run together: the steps of a workload, formed before any clock runs.

A step is one forward pass. With a closed loop of ``batch`` users (each sends the next request when its last one is
done) the steps don't depend on how long anything takes, so they are data, and both engines replay the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.traces.trace import DECODE, PREFILL, RoutingTrace

Ints = NDArray[np.int64]
#: From the rows of the running requests' next tokens to the places of those that decode together, step by step.
Grouping = Callable[[Ints], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Steps:
    """Forward passes over rows of a trace.

    Attributes:
        row_start: the rows of step s are ``row[row_start[s]:row_start[s + 1]]``. [steps + 1]
        row: rows of the trace, in the order in which the step holds its tokens. [tokens]
        phase: PREFILL or DECODE. [steps]
        request: trace request ids, in the order of admission. [requests]
        predecessor: the place in ``request`` of the one whose end let this one in; -1: it was there at the start.
        training: so many steps at the start are only learned from.
    """

    row_start: Ints
    row: Ints
    phase: NDArray[np.uint8]
    request: Ints
    predecessor: Ints
    training: int = 0

    def after(self, earlier: Steps) -> Steps:
        """These steps behind others of the same trace that are only learned from."""
        return Steps(
            row_start=np.concatenate([earlier.row_start, earlier.row_start[-1] + self.row_start[1:]]),
            row=np.concatenate([earlier.row, self.row]),
            phase=np.concatenate([earlier.phase, self.phase]),
            request=self.request,
            predecessor=self.predecessor,
            training=earlier.num_steps,
        )

    @property
    def num_steps(self) -> int:
        """Forward passes."""
        return len(self.phase)

    @property
    def tokens(self) -> Ints:
        """Tokens of each step. [steps]"""
        return np.diff(self.row_start)


def closed_loop(
    trace: RoutingTrace,
    requests: list[int],
    batch: int = 1,
    max_prompt: int | None = None,
    max_output: int | None = None,
    prefill_chunk: int | None = None,
    group: Grouping | None = None,
) -> Steps:
    """Steps of ``batch`` users who send ``requests`` one after the other.

    A free slot admits the next request, whose prompt is prefilled on its own (in chunks where ``prefill_chunk`` is
    given); then all admitted requests decode together, one token each a step. A prompt longer than ``max_prompt``
    keeps its last tokens; a request stops after ``max_output`` output tokens (the first comes from the prefill).
    ``group`` says which of the admitted requests decode together, from the rows of their next tokens; default: all.

    Raises:
        TraceError: no request, or none has a row left.
    """
    waiting = deque(_Request(trace, place, number, max_prompt, max_output) for place, number in enumerate(requests))
    waiting = deque(request for request in waiting if request.has_rows)
    if not waiting:
        raise TraceError.of(trace.card.name, "the workload selects no token of this trace")
    admitted = list(waiting)
    predecessor = {request.place: -1 for request in admitted}
    free: deque[int] = deque([-1] * batch)
    running: list[_Request] = []
    steps: list[tuple[int, NDArray[np.int64]]] = []

    def leave(done: list[_Request]) -> None:
        for request in done:
            running.remove(request)
            free.append(request.place)

    while waiting or running:
        while waiting and free:
            request = waiting.popleft()
            predecessor[request.place] = free.popleft()
            running.append(request)
            size = prefill_chunk or max(1, len(request.prefill))
            chunks = range(0, len(request.prefill), size)
            steps.extend((PREFILL, request.prefill[first : first + size]) for first in chunks)
            leave([request] if not len(request.decode) else [])
        if running:
            rows = np.array([request.upcoming for request in running])
            groups = [range(len(rows))] if group is None else group(rows)
            steps.extend((DECODE, np.array([running[place].next_decode() for place in places])) for places in groups)
            leave([request for request in running if request.done])
    place = {request.place: order for order, request in enumerate(admitted)}
    return _pack(steps, admitted, [place.get(predecessor[request.place], -1) for request in admitted])


def recorded(trace: RoutingTrace, requests: list[int]) -> Steps:
    """The steps that the source recorded (``step`` of the trace).

    Raises:
        TraceError: the trace does not record which tokens ran together.
    """
    if trace.step is None:
        raise TraceError.of(trace.card.name, "does not record which tokens ran together", "use batching: closed-loop")
    rows = np.flatnonzero(np.isin(trace.request, requests))
    rows = rows[np.argsort(trace.step[rows], kind="stable")]
    borders = np.flatnonzero(np.diff(trace.step[rows])) + 1
    groups = np.split(rows, borders)
    steps = [(int(trace.phase[group].min()), group) for group in groups]
    order = [_Request(trace, place, number, None, None) for place, number in enumerate(requests)]
    return _pack(steps, order, [-1] * len(order))


class _Request:
    """One request's rows, split by phase, and how far its decode has come."""

    def __init__(self, trace: RoutingTrace, place: int, number: int, max_prompt: int | None, max_output: int | None):
        rows = trace.rows_of(number)
        row = np.arange(rows.start, rows.stop)
        phase = trace.phase[rows]
        self.place, self.number = place, number
        self.prefill = row[phase == PREFILL]
        if max_prompt is not None:
            self.prefill = self.prefill[max(0, len(self.prefill) - max_prompt) :]
        self.decode = row[phase == DECODE]
        if max_output is not None:
            self.decode = self.decode[: max_output - 1 if len(self.prefill) else max_output]
        self._next = 0

    @property
    def has_rows(self) -> bool:
        return len(self.prefill) + len(self.decode) > 0

    @property
    def done(self) -> bool:
        return self._next >= len(self.decode)

    @property
    def upcoming(self) -> int:
        return int(self.decode[self._next])

    def next_decode(self) -> int:
        self._next += 1
        return int(self.decode[self._next - 1])


def _pack(steps: list[tuple[int, Ints]], requests: list[_Request], predecessor: list[int]) -> Steps:
    return Steps(
        row_start=np.concatenate([[0], np.cumsum([len(rows) for _, rows in steps])]).astype(np.int64),
        row=np.concatenate([rows for _, rows in steps]).astype(np.int64),
        phase=np.array([phase for phase, _ in steps], dtype=np.uint8),
        request=np.array([request.number for request in requests], dtype=np.int64),
        predecessor=np.array(predecessor, dtype=np.int64),
    )
