"""Serving, compiled: hundreds of times as fast as the SimPy engine, and equal to it to the last bit.

The workload comes in stretches and what has ended goes out in batches, so that memory holds what is in the system and
no more, however long the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.replay import compile as compiler
from moesim.replay.kernels import serving_state as state
from moesim.replay.kernels.serving import serve as serve_interpreted
from moesim.setup.serving import Requests, ServingSetup

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_SLOTS, _ROOM = 4096, 16384
#: Little's law holds exactly; only the rounding of a long sum may part its sides.
_LITTLE = 1e-9


@dataclass(frozen=True)
class Batch:
    """Requests that have ended, in order of their end.

    Attributes:
        arrival_s, scheduled_s, first_token_s, last_token_s: [requests]
        ident: place in the workload; prompt, output: tokens; preempted: how often; replica: that ended it. [requests]
    """

    arrival_s: Floats
    scheduled_s: Floats
    first_token_s: Floats
    last_token_s: Floats
    ident: Ints
    prompt: Ints
    output: Ints
    preempted: Ints
    replica: Ints


@dataclass(frozen=True)
class ServingOutcome:
    """What a serving run leaves behind, beside the requests that it has handed out.

    Attributes:
        end_s: of the last event; start_s: of the first arrival.
        arrived, finished, rejected, preemptions: requests. A rejected one could never have run.
        computed_tokens: of prompts, those computed anew included.
        steps, busy_s: by replica. [replicas]
        use: how often every entry of the cost tables was used, and gaps between tokens by bin.
        interval_s: of the timeline.
        area_s: the integral of the number of requests in the system.
        gap_sum_s, gaps: of all gaps between a request's tokens.
        most_blocks: KV blocks in use at once, over all replicas.
    """

    start_s: float
    end_s: float
    arrived: int
    finished: int
    rejected: int
    preemptions: int
    computed_tokens: int
    steps: Ints
    busy_s: Floats
    use: state.Use
    interval_s: float
    area_s: float
    gap_sum_s: float
    gaps: int
    most_blocks: int


def serve(
    setup: ServingSetup, observe: Callable[[Batch], None] = lambda _: None, *, compiled: bool = True
) -> ServingOutcome:
    """Run a serving setup until its last request has ended.

    Args:
        observe: takes the requests that have ended, batch by batch.
        compiled: else the same kernel is interpreted, for tests.
    """
    run = _Run(setup, observe, compiled)
    for stretch, final in _marked(setup.requests()):
        run.through(stretch, final)
    return run.outcome()


def _marked(stretches: Iterator[Requests]) -> Iterator[tuple[Requests, bool]]:
    """Each stretch, and whether it is the last one."""
    before: Requests | None = None
    for stretch in stretches:
        if before is not None:
            yield before, False
        before = stretch
    if before is not None:
        yield before, True


class _Run:
    """The state of a run, and what the kernel asks for."""

    def __init__(self, setup: ServingSetup, observe: Callable[[Batch], None], compiled: bool):
        self._setup, self._observe, self._compiled = setup, observe, compiled
        limits = setup.limits
        self._slots = state.empty_slots(_SLOTS)
        self._events = state.empty_events(_SLOTS + limits.users + 1)
        self._replicas = state.idle_replicas(limits)
        self._use = state.no_use(setup.costs)
        self._scratch = state.scratch_of(setup.routing)
        self._scalars = state.scalars_at_start()
        self._scalars.number[state.FREE] = _SLOTS
        room = _ROOM + limits.requests
        self._ended = state.Ended(np.zeros((room, 4)), np.zeros((room, 5), dtype=np.int64))
        self._start_s, self._latency_s = math.nan, 0.0

    def through(self, requests: Requests, final: bool) -> None:
        """Take a stretch of the workload."""
        stretch = state.Stretch(requests.arrival_s, requests.prompt, requests.output, requests.source)
        number, limits = self._scalars.number, self._setup.limits
        number[state.ROW] = 0
        if limits.users and number[state.FIRST] == 0:
            self._first_of_users(requests)
        if math.isnan(self._start_s) and len(requests.arrival_s):
            self._start_s = float(requests.arrival_s[: limits.users or 1].min())
        rules = state.rules_of(limits, final)
        while True:
            told = self._call(rules, stretch)
            if told == state.WANTS_SLOTS:
                self._more_slots()
            elif told in (state.WANTS_ROOM, state.DONE):
                self._hand_out()
            if told in (state.DONE, state.WANTS_REQUESTS):
                return

    def outcome(self) -> ServingOutcome:
        """After the last stretch."""
        second, number = self._scalars.second, self._scalars.number
        if number[state.IN_SYSTEM]:
            raise AssertionError(f"{number[state.IN_SYSTEM]} requests are stuck")
        area = float(second[state.AREA_S])
        if not math.isclose(area, self._latency_s, rel_tol=_LITTLE, abs_tol=_LITTLE):
            raise AssertionError(f"Little's law is broken: {area} request seconds, and latencies of {self._latency_s}")
        return ServingOutcome(
            start_s=self._start_s,
            end_s=float(second[state.NOW]),
            arrived=int(number[state.FIRST]),
            finished=int(number[state.FINISHED_ALL]),
            rejected=int(number[state.REJECTED]),
            preemptions=int(number[state.PREEMPTIONS]),
            computed_tokens=int(number[state.PROMPT_TOKENS]),
            steps=self._replicas.steps,
            busy_s=self._replicas.busy_s,
            use=self._use,
            interval_s=float(second[state.INTERVAL_S]),
            area_s=area,
            gap_sum_s=float(second[state.GAP_SUM_S]),
            gaps=int(number[state.GAPS]),
            most_blocks=int(number[state.MOST_BLOCKS]),
        )

    def _call(self, rules: state.Rules, stretch: state.Stretch) -> int:
        setup = self._setup
        arguments = (
            setup.costs,
            setup.routing,
            rules,
            stretch,
            self._slots,
            self._replicas,
            self._events,
            self._use,
            self._scratch,
            self._ended,
            self._scalars,
        )
        if self._compiled:
            return int(compiler.run(None, "serve", *arguments))
        return serve_interpreted(*arguments)

    def _first_of_users(self, requests: Requests) -> None:
        """Every user thinks, then sends a request."""
        first = np.sort(requests.arrival_s[: self._setup.limits.users])
        count = len(first)
        self._events.time_s[:count] = first
        self._events.sequence[:count] = np.arange(1, count + 1)
        self._events.what[:count] = -1
        number = self._scalars.number
        number[state.EVENTS] = number[state.SEQUENCE] = number[state.CLAIMED] = count

    def _more_slots(self) -> None:
        """Twice the room for requests in the system."""
        old, count = self._slots, len(self._slots.number)
        more = state.empty_slots(2 * count)
        more.number[:count], more.second[:count] = old.number, old.second
        free = self._scalars.number[state.FREE]
        more.free[:free] = old.free[:free]
        more.free[free : free + count] = np.arange(2 * count - 1, count - 1, -1)
        self._scalars.number[state.FREE] += count
        self._slots = more
        events = state.empty_events(len(self._events.time_s) + count)
        for name in ("time_s", "sequence", "what"):
            getattr(events, name)[: len(self._events.time_s)] = getattr(self._events, name)
        self._events = events

    def _hand_out(self) -> None:
        count = int(self._scalars.number[state.ENDED])
        second, number = self._ended.second[:count].copy(), self._ended.number[:count].copy()
        self._scalars.number[state.ENDED] = 0
        self._latency_s += float((second[:, 3] - second[:, 0]).sum())
        if count:
            self._observe(Batch(*second.T, *number.T))
