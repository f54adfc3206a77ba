"""A server of transfers: a link between tiers, or the CPU. One at a time, the next one chosen when the last is done.

Not preemptive. ``fifo`` serves in the order of asking; ``demand-first`` serves what the GPU waits for before any
prefetch that has not started.
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
        duration_s: seconds of a transfer.
        admit: makes room at the far end before a transfer starts.
        arrive: called at a transfer's end.
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
    ):
        self.name = name
        self.spans: list[Span] = []
        self._env = env
        self._demand_first = discipline == "demand-first"
        self._duration_s, self._admit, self._arrive = duration_s, admit, arrive
        self._queued, self._served = causes
        self._queue: list[tuple[bool, int, Transfer]] = []
        self._sequence = 0
        self._idle: simpy.Event | None = None
        env.process(self._serve())

    def put(self, transfer: Transfer) -> None:
        """Queue a transfer."""
        transfer.waits_for(self._queued, self._env.now)
        self._enqueue(transfer)

    def promote(self, transfer: Transfer) -> None:
        """A queued prefetch has become a demand: under ``demand-first`` it moves ahead, under ``fifo`` it stays."""
        if self._demand_first:
            self._enqueue(transfer)

    def _enqueue(self, transfer: Transfer) -> None:
        self._sequence += 1
        transfer.place, transfer.queued_on = self._sequence, self
        behind_demands = self._demand_first and not transfer.is_demand
        heapq.heappush(self._queue, (behind_demands, self._sequence, transfer))
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.succeed()

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
            if not (yield from self._admit(transfer)):
                continue
            start, duration = env.now, self._duration_s(transfer)
            transfer.arrives_s = start + duration
            transfer.waits_for(self._served, start)
            yield Pause(env, duration, ARRIVE)
            transfer.arrives_s = None
            self.spans.append(Span(transfer.key, transfer.visit, transfer.is_demand, start, env.now, transfer.form))
            self._arrive(transfer)

    def _next(self) -> Transfer | None:
        while self._queue:
            _, place, transfer = heapq.heappop(self._queue)
            if place == transfer.place and transfer.queued_on is self:
                transfer.queued_on = None
                if not transfer.cancelled:
                    return transfer
        return None
