"""A server of transfers: a link between tiers, or the CPU. One at a time, the next one chosen when the last is done.

``fifo`` serves in the order of asking; ``demand-first`` serves what the GPU waits for before any prefetch that has not
started. A transfer that has begun is not interrupted, but a prefetch may go in pieces: after each it is up to the
discipline who is next, and one that nobody wants any more ends there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from typing import Any

import simpy

from moesim.engine.clock import ARRIVE, DISPATCH, Pause
from moesim.engine.transfers import Transfer
from moesim.replay.figures import Cause, Span
from moesim.setup import LinkDiscipline

#: A process that makes room at the far end of a link; its value says whether the transfer goes ahead.
Admission = Generator[simpy.Event, Any, bool]


class Link:
    """Serves transfers one by one.

    Args:
        name: for the timeline.
        duration_s: seconds of a transfer, or of one of its pieces.
        pieces: in how many it goes; default: one.
        admit: makes room at the far end before a transfer starts.
        arrive: called at a transfer's end.
        goes_on: asked between its pieces; where it says no, it has seen to what the transfer held.
        causes: what a wait is for while a transfer stands in the queue, and while it is served.
    """

    def __init__(
        self,
        env: simpy.Environment,
        name: str,
        discipline: LinkDiscipline,
        *,
        duration_s: Callable[[Transfer], float],
        admit: Callable[[Transfer], Admission],
        arrive: Callable[[Transfer], None],
        causes: tuple[Cause, Cause],
        pieces: Callable[[Transfer], int] = lambda _: 1,
        goes_on: Callable[[Transfer], bool] = lambda _: True,
    ):
        self.name = name
        self.spans: list[Span] = []
        self._env = env
        self._demand_first = discipline == "demand-first"
        self._duration_s, self._admit, self._arrive = duration_s, admit, arrive
        self._pieces, self._goes_on = pieces, goes_on
        self._queued, self._served = causes
        self._queue: list[tuple[bool, bool, int, Transfer]] = []
        self._sequence = 0
        self._idle: simpy.Event | None = None
        env.process(self._serve())

    def put(self, transfer: Transfer) -> None:
        """Queue a transfer."""
        transfer.waits_for(self._queued, self._env.now)
        self._enqueue(transfer)

    def promote(self, transfer: Transfer) -> None:
        """A queued prefetch is waited for now: under ``demand-first`` it moves ahead, under ``fifo`` it stays."""
        if self._demand_first:
            self._enqueue(transfer)

    def _enqueue(self, transfer: Transfer) -> None:
        self._sequence += 1
        transfer.place = self._sequence
        self._push(transfer)
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.succeed()

    def _push(self, transfer: Transfer) -> None:
        """Into the queue by its place there, and before that what has begun, so that it holds nobody up for long."""
        transfer.queued_on = self
        behind_demands = self._demand_first and transfer.lookup < 0
        heapq.heappush(self._queue, (behind_demands, not transfer.pieces, transfer.place, transfer))

    def _serve(self) -> Generator[simpy.Event, Any, None]:
        env = self._env
        while True:
            if not self._queue:
                self._idle = env.event()
                yield self._idle
            if env.peek() <= env.now:  # something else happens now, and may ask for more
                yield Pause(env, 0.0, DISPATCH)
            transfer = self._next()
            if transfer is None:
                continue
            if not transfer.pieces:
                if not (yield from self._admit(transfer)):
                    continue
                transfer.piece, transfer.pieces = 0, self._pieces(transfer)
            start, duration = env.now, self._duration_s(transfer)
            transfer.arrives_s = start + duration
            transfer.waits_for(self._served, start)
            yield Pause(env, duration, ARRIVE)
            transfer.arrives_s = None
            self.spans.append(_span(transfer, start, env.now))
            transfer.piece += 1
            if transfer.piece == transfer.pieces:
                transfer.pieces = 0
                self._arrive(transfer)
            elif self._goes_on(transfer):
                transfer.waits_for(self._queued, env.now)
                self._push(transfer)

    def _next(self) -> Transfer | None:
        while self._queue:
            _, _, place, transfer = heapq.heappop(self._queue)
            if place == transfer.place and transfer.queued_on is self:
                transfer.queued_on = None
                if not transfer.cancelled:
                    return transfer
        return None


def _span(transfer: Transfer, start_s: float, end_s: float) -> Span:
    key, visit, is_demand = transfer.key, transfer.visit, transfer.is_demand
    return Span(key, visit, is_demand, start_s, end_s, transfer.form, transfer.piece, transfer.pieces)
