"""Serving in SimPy: the reference. Requests come to replicas that batch continuously, as a vLLM instance does.

A replica schedules a step, sleeps until it ends, hands out its tokens, and schedules the next; without work it waits.
Each rule is written as plainly as it can be: :mod:`moesim.replay.serving` does the same much faster, and the tests
hold both to the same times.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from moesim.engine.clock import ASK, Moment, Pause
from moesim.replay.kernels import serving_costs as tables
from moesim.setup.serving import WORD_BITS, Limits, ServingSetup

Events = Generator[simpy.Event, Any, None]


@dataclass
class Served:
    """A request and what became of it.

    Attributes:
        ident: its place in the workload; source: which request of the routing it follows.
        computed: tokens whose KV cache is there; produced: output tokens so far; held: KV blocks.
        token_s: when each output token came.
    """

    ident: int
    prompt: int
    output: int
    source: int
    arrival_s: float
    computed: int = 0
    produced: int = 0
    held: int = 0
    scheduled: int = 0
    preempted: int = 0
    passed: int = 0
    scheduled_s: float = -1.0
    token_s: list[float] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens to compute before the next one comes."""
        return self.prompt + self.produced - self.computed


@dataclass(frozen=True)
class Serving:
    """What a run leaves behind: requests in order of their end, how many were turned away, and steps by replica."""

    requests: list[Served]
    rejected: int
    steps: list[int]


def simulate_serving(setup: ServingSetup) -> Serving:
    """Run a serving setup until its last request has ended."""
    return _Service(setup).run()


class _Service:
    """Replicas, and what is between them."""

    def __init__(self, setup: ServingSetup):
        self.env, self.setup, self.limits = simpy.Environment(), setup, setup.limits
        count = self.limits.replicas + self.limits.decoders
        self.replicas = [_Replica(self, number) for number in range(count)]
        self.prefilling, self.decoding = self.replicas[: self.limits.replicas], self.replicas[self.limits.replicas :]
        self.ended: list[Served] = []
        self.rejected = self._arrived = 0
        self._turn = {True: 0, False: 0}
        self._think: Iterator[float] = iter(())
        self._next: Iterator[tuple[int, int, int]] = iter(())

    def run(self) -> Serving:
        """Everything."""
        self.env.process(self._users() if self.limits.users else self._arrivals())
        self.env.run()
        waiting = sum(len(replica.queue) + len(replica.running) for replica in self.replicas)
        assert not waiting, f"{waiting} requests are stuck"
        return Serving(self.ended, self.rejected, [replica.steps for replica in self.replicas])

    def _arrivals(self) -> Events:
        for stretch in self.setup.requests():
            columns = (stretch.arrival_s, stretch.prompt, stretch.output, stretch.source)
            for arrival_s, prompt, output, source in zip(*(column.tolist() for column in columns), strict=True):
                if arrival_s > self.env.now:
                    yield Moment(self.env, arrival_s)
                self._arrive(prompt, output, source)

    def _users(self) -> Events:
        (stretch,) = self.setup.requests()
        columns = (stretch.prompt, stretch.output, stretch.source)
        self._next = zip(*(column.tolist() for column in columns), strict=True)
        think = stretch.arrival_s.tolist()
        first, self._think = sorted(think[: self.limits.users]), iter(think[self.limits.users :])
        for think_s in first:
            self.env.process(self._user(think_s))
        yield from ()

    def _user(self, think_s: float) -> Events:
        yield self.env.timeout(think_s)
        self._arrive(*next(self._next))

    def _arrive(self, prompt: int, output: int, source: int) -> None:
        limits, size = self.limits, self.limits.block_tokens
        request = Served(self._arrived, prompt, output, source, self.env.now, computed=shared(limits, prompt))
        self._arrived += 1
        whole = blocks_for(prompt + output - 1 - request.computed, size) + limits.shared_prefix // size
        if whole > limits.blocks or (not limits.chunked and prompt + output > limits.tokens):
            self.rejected += 1
            self._think_again()
            return
        self._route(self.prefilling).put(request)

    def _route(self, pool: list[_Replica]) -> _Replica:
        if self.limits.least_loaded:
            return min(pool, key=lambda replica: replica.present)
        key = pool is self.prefilling
        chosen = pool[self._turn[key]]
        self._turn[key] = (self._turn[key] + 1) % len(pool)
        return chosen

    def transfer(self, request: Served, origin: _Replica) -> Events:
        """A KV cache on its way to a decoding replica; its blocks are held until it is there."""
        limits = self.limits
        start = max(self.env.now, origin.link_s)
        origin.link_s = start + (limits.transfer_latency_s + limits.transfer_token_s * request.computed)
        yield Moment(self.env, origin.link_s)
        origin.release(request)
        origin.present -= 1
        origin.wake()
        self._route(self.decoding).put(request)

    def leave(self, request: Served) -> None:
        """A request is through."""
        self.ended.append(request)
        self._think_again()

    def _think_again(self) -> None:
        """In a closed loop, a user whose request has left the system comes back with the next one."""
        think_s = next(self._think, None)
        if think_s is not None:
            self.env.process(self._user(think_s))


class _Replica:
    """One instance: a queue, the requests that run, KV blocks."""

    def __init__(self, service: _Service, number: int):
        self._service, self._limits, self._env = service, service.limits, service.env
        self._prefills_only = bool(service.limits.decoders) and number < service.limits.replicas
        self.queue: deque[Served] = deque()
        self.running: list[Served] = []
        prefix = self._limits.shared_prefix // self._limits.block_tokens
        self.free, self.present, self.link_s, self.steps = self._limits.blocks - prefix, 0, 0.0, 0
        self._work = self._env.event()
        self._env.process(self._go())

    def put(self, request: Served) -> None:
        """A new request, at the end of the queue."""
        self.present += 1
        self.queue.append(request)
        self.wake()

    def wake(self) -> None:
        """There may be something to do."""
        if not self._work.triggered:
            self._work.succeed()

    def release(self, request: Served) -> None:
        """A request's KV blocks are free again."""
        self.free += request.held
        request.held = 0

    def _go(self) -> Events:
        while True:
            yield Pause(self._env, 0.0, ASK)  # whatever else happens at this moment comes first
            tokens = self._plan() or self._plan()
            if not tokens:
                self._work = self._env.event()
                yield self._work
                continue
            self.steps += 1
            yield self._env.timeout(self._step_s(tokens))
            self._hand_out()

    def _plan(self) -> int:
        """Running requests in order, then waiting ones, within the budget of tokens."""
        budget, preempted = self._limits.tokens, False
        for request in self.running:
            request.scheduled = 0
        for request in list(self.running):
            new = min(request.left, budget)
            if request not in self.running or not new:
                continue
            while self.free < (lacking := self._lacking(request, new)) and request in self.running:
                self._preempt(self.running[-1])
                preempted = True
            if request in self.running:
                self._hold(request, lacking)
                request.scheduled = new
                budget -= new
        while not preempted and budget and self.queue and len(self.running) < self._limits.requests:
            request = self._next()
            new = min(request.left, budget)
            lacking = self._lacking(request, new)
            if lacking > self.free or (request.left > budget and not self._limits.chunked):
                break
            if request is not self.queue[0]:
                self.queue[0].passed += 1
            self.queue.remove(request)
            self.running.append(request)
            self._hold(request, lacking)
            request.scheduled = new
            budget -= new
            if request.scheduled_s < 0:
                request.scheduled_s = self._env.now
        return self._limits.tokens - budget

    def _next(self) -> Served:
        """The request to admit: the first, or of the window the one whose experts add least to those in use."""
        window = self._limits.window
        if window <= 1 or not self.running or self.queue[0].passed >= window:
            return self.queue[0]
        costs, liked = self._service.setup.costs, self._service.setup.routing.liked
        union = np.bitwise_or.reduce([liked[request.source] for request in self.running])

        def added(request: Served) -> float:
            new = liked[request.source] & ~union
            return sum(float(times) * len(_bits(words)) for times, words in zip(costs.layers, new, strict=True))

        return min(itertools.islice(self.queue, window), key=added)

    def _lacking(self, request: Served, new: int) -> int:
        own = request.computed + new - shared(self._limits, request.prompt)
        return blocks_for(own, self._limits.block_tokens) - request.held

    def _hold(self, request: Served, blocks: int) -> None:
        request.held += blocks
        self.free -= blocks

    def _preempt(self, request: Served) -> None:
        """Back to the head of the queue, its KV cache lost."""
        self.running.remove(request)
        self.release(request)
        request.computed, request.scheduled = shared(self._limits, request.prompt), 0
        request.preempted += 1
        request.passed = self._limits.window
        self.queue.appendleft(request)

    def _hand_out(self) -> None:
        """Tokens to all whose next one is computed."""
        for request in list(self.running):
            request.computed += request.scheduled
            if request.scheduled and not request.left:
                request.produced += 1
                request.token_s.append(self._env.now)
                if request.produced == request.output:
                    self.running.remove(request)
                    self.release(request)
                    self.present -= 1
                    self._service.leave(request)
                elif self._prefills_only:
                    self.running.remove(request)
                    self._env.process(self._service.transfer(request, self))
            request.scheduled = 0

    def _step_s(self, tokens: int) -> float:
        costs, step = self._service.setup.costs, [request for request in self.running if request.scheduled]
        decoding = [request for request in step if request.scheduled == 1 and request.computed]
        prefilling = [request for request in step if request not in decoding]
        new = sum(request.scheduled for request in prefilling)
        pairs = sum(
            request.scheduled * request.computed + request.scheduled * (request.scheduled + 1) * 0.5
            for request in prefilling
        )
        keys = sum(request.computed + 1 for request in decoding)
        sequences = sum(request.scheduled == request.left for request in step)
        seconds = float(costs.dense_s[tokens] + costs.head_s[sequences] + costs.host_s[len(step)])
        seconds += float(tables.decode_s(costs, np.zeros_like(costs.decode_s), len(decoding), keys))
        seconds += float(tables.prefill_s(costs, np.zeros_like(costs.prefill_s), new, pairs))
        return seconds + self._experts_s(tokens, step) if len(costs.layers) else seconds

    def _experts_s(self, tokens: int, step: list[Served]) -> float:
        """Routed experts of all layers; in each, the rank that takes longest."""
        costs, routing, seconds = self._service.setup.costs, self._service.setup.routing, 0.0
        rows = [self._row(request, request.computed + ahead) for request in step for ahead in range(request.scheduled)]
        ranks = [_bits(words) for words in routing.ranks]
        for layer in range(len(costs.layers)):
            used = {expert for row in rows for expert in _bits(routing.mask[row, layer])}
            longest = max(
                float(tables.expert_s(costs, tokens, pairs, len(used & rank)))
                for rank, pairs in zip(ranks, self._pairs(rows, layer, tokens), strict=True)
            )
            seconds += float(costs.layers[layer]) * longest
        return seconds

    def _pairs(self, rows: list[int], layer: int, tokens: int) -> list[int]:
        """(token, expert) pairs of each rank."""
        routing = self._service.setup.routing
        if len(routing.ranks) == 1:
            return [tokens * int(self._service.setup.costs.top_k[0])]
        return [int(routing.pairs[rows, layer, rank].sum()) for rank in range(len(routing.ranks))]

    def _row(self, request: Served, token: int) -> int:
        """The row of a request's token; past its end its group begins again."""
        routing, source = self._service.setup.routing, request.source
        if token < request.prompt:
            low, start, high = routing.prompt_low, routing.prompt_start, routing.prompt_high
        else:
            low, start, high, token = (
                routing.output_low,
                routing.output_start,
                routing.output_high,
                token - request.prompt,
            )
        size = int(high[source] - low[source])
        return int(low[source]) + (int(start[source] - low[source]) + token) % size


def blocks_for(tokens: int, size: int) -> int:
    """KV blocks that so many tokens fill, the last one in part."""
    return -(-tokens // size)


def shared(limits: Limits, prompt: int) -> int:
    """Tokens of a prompt whose KV cache is there already: whole blocks, never its last token."""
    size = limits.block_tokens
    return min(limits.shared_prefix // size * size, (prompt - 1) // size * size)


def _bits(words: Any) -> set[int]:
    """The experts of a mask."""
    return {
        word * WORD_BITS + bit
        for word, bits in enumerate(words.tolist())
        for bit in range(WORD_BITS)
        if bits >> bit & 1
    }
