"""What a serving run holds while it goes on, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.setup.serving import Limits, Routing, StepCosts

#: Of a request in the system, by slot: whole numbers and seconds.
NUMBERS = (
    ("ident", -1),
    ("prompt", 0),
    ("output", 0),
    ("source", 0),
    ("computed", 0),
    ("produced", 0),
    ("blocks", 0),
    ("scheduled", 0),
    ("preempted", 0),
    ("home", 0),
    ("next", -1),
    ("passed", 0),
)
#: Intervals of the timeline; when they are full, pairs of them become one.
INTERVALS = 512
#: Columns of the timeline: summed over an interval's events, or over its seconds.
ARRIVED, FINISHED, TOKENS, WAITING_S, RUNNING_S, BLOCKS_S = range(6)
#: Inter-token gaps are counted in bins, each so much wider than the one before, from this gap on.
GAP_FIRST_S, GAP_RATIO, GAP_BINS = 1e-5, 1.005, 4096
#: Places of the scalars.
NOW, AREA_S, INTERVAL_S, GAP_SUM_S, LAST_GAP_S = range(5)
(
    ROW,
    CLAIMED,
    FREE,
    EVENTS,
    SEQUENCE,
    IN_SYSTEM,
    WAITING,
    RUNNING,
    BLOCKS,
    ENDED,
    TURN,
    FINISHED_ALL,
    REJECTED,
    PREEMPTIONS,
    PROMPT_TOKENS,
    MOST_BLOCKS,
    LAST_BIN,
    GAPS,
    DECODE_TURN,
    FIRST,
) = range(20)
#: Why the kernel came back.
DONE, WANTS_REQUESTS, WANTS_ROOM, WANTS_SLOTS = range(4)
#: Columns of what has ended: seconds; whole numbers.
ENDED_S = ("arrival_s", "scheduled_s", "first_token_s", "last_token_s")
ENDED_NUMBERS = ("ident", "prompt", "output", "preempted", "home")


@dataclass(frozen=True)
class Rules:
    """:class:`moesim.setup.serving.Limits` as an array, by the places below."""

    limit: Any
    transfer: Any


(TOKENS_MOST, REQUESTS_MOST, BLOCK, BLOCKS_ALL, CHUNKED, SHARED, TAKERS, DECODERS, LEAST, USERS, FINAL, WINDOW) = range(
    12
)


@dataclass(frozen=True)
class Stretch:
    """The arrays of :class:`moesim.setup.serving.Requests`."""

    arrival_s: Any
    prompt: Any
    output: Any
    source: Any


@dataclass(frozen=True)
class Slots:
    """Requests in the system. ``number``: [slots, columns]; ``second``: [slots, 4]; ``free``: a stack of slots."""

    number: Any
    second: Any
    free: Any


@dataclass(frozen=True)
class Replicas:
    """Each replica's queue (a linked list of slots), its running requests in order, and its clock.

    Attributes:
        running: [replicas, requests]; count: how many; head, tail, waiting: of the queue. [replicas]
        blocks: free KV blocks; present: requests routed there. [replicas]
        end_s: of the step that runs (infinite: none); link_s: when the way out is free; busy_s. [replicas]
        steps: [replicas]
    """

    running: Any
    count: Any
    head: Any
    tail: Any
    waiting: Any
    blocks: Any
    present: Any
    end_s: Any
    link_s: Any
    busy_s: Any
    steps: Any


@dataclass(frozen=True)
class Events:
    """A heap of what comes: (time, sequence number), and the slot whose KV cache arrives, or -1 for a user."""

    time_s: Any
    sequence: Any
    what: Any


@dataclass(frozen=True)
class Use:
    """What was used: entries of the cost tables (their shapes), gaps between tokens, and the timeline."""

    dense: Any
    head: Any
    host: Any
    decode: Any
    prefill: Any
    expert: Any
    gap: Any
    timeline: Any


@dataclass(frozen=True)
class Scratch:
    """Experts of the running step: ``mask`` [layers, words], ``pairs`` [layers, ranks]; ``liked`` by those that run."""

    mask: Any
    pairs: Any
    liked: Any


@dataclass(frozen=True)
class Ended:
    """Requests that are through, in order of their end. [room, columns]"""

    second: Any
    number: Any


@dataclass(frozen=True)
class Scalars:
    """Running numbers: seconds, whole numbers."""

    second: Any
    number: Any


(IDENT, PROMPT, OUTPUT, SOURCE, COMPUTED, PRODUCED, HELD, SCHEDULED, PREEMPTED, HOME, NEXT, PASSED) = range(
    len(NUMBERS)
)
ARRIVAL_AT, SCHEDULED_AT, FIRST_AT, LAST_AT = range(4)


def rules_of(limits: Limits, final: bool) -> Rules:
    """Limits as arrays."""
    numbers = (
        limits.tokens,
        limits.requests,
        limits.block_tokens,
        limits.blocks,
        limits.chunked,
        limits.shared_prefix // limits.block_tokens * limits.block_tokens,
        limits.replicas,
        limits.decoders,
        limits.least_loaded,
        limits.users,
        final,
        limits.window,
    )
    transfer = (limits.transfer_latency_s, limits.transfer_token_s)
    return Rules(np.array(numbers, dtype=np.int64), np.array(transfer))


def empty_slots(count: int) -> Slots:
    """Room for so many requests."""
    number = np.zeros((count, len(NUMBERS)), dtype=np.int64)
    free = np.arange(count - 1, -1, -1, dtype=np.int64)
    return Slots(number, np.zeros((count, len(ENDED_S))), free)


def empty_events(count: int) -> Events:
    """Room for so many events."""
    return Events(np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64))


def idle_replicas(limits: Limits) -> Replicas:
    """All replicas, without a request."""
    count = limits.replicas + limits.decoders
    prefix = -(-(limits.shared_prefix // limits.block_tokens * limits.block_tokens) // limits.block_tokens)

    def filled(value: float) -> Any:
        return np.full(count, value, dtype=np.int64 if isinstance(value, int) else np.float64)

    return Replicas(
        running=np.zeros((count, limits.requests), dtype=np.int64),
        count=filled(0),
        head=filled(-1),
        tail=filled(-1),
        waiting=filled(0),
        blocks=filled(limits.blocks - prefix),
        present=filled(0),
        end_s=filled(np.inf),
        link_s=filled(0.0),
        busy_s=filled(0.0),
        steps=filled(0),
    )


def no_use(costs: StepCosts) -> Use:
    """Nothing used yet."""
    tables = (costs.dense_s, costs.head_s, costs.host_s, costs.decode_s, costs.prefill_s, costs.expert_s)
    gap, timeline = np.zeros(GAP_BINS, dtype=np.int64), np.zeros((INTERVALS, 6))
    dense, head, host, decode, prefill, expert = (np.zeros(np.shape(table)) for table in tables)
    return Use(dense, head, host, decode, prefill, expert, gap, timeline)


def scratch_of(routing: Routing) -> Scratch:
    """For one step."""
    layers, words = routing.mask.shape[1:]
    mask, pairs = np.zeros((layers, words), dtype=np.int64), np.zeros((layers, len(routing.ranks)), dtype=np.int64)
    return Scratch(mask, pairs, np.zeros_like(mask))


def scalars_at_start() -> Scalars:
    """Before the first event."""
    second = np.zeros(LAST_GAP_S + 1)
    second[INTERVAL_S], second[LAST_GAP_S] = 1e-3, -1.0
    number = np.zeros(FIRST + 1, dtype=np.int64)
    return Scalars(second, number)
