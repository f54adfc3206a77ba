"""Serving, event by event: arrivals, ends of steps, KV caches that arrive; whatever comes first.

All events of one moment are taken, then every replica that is idle and has work starts a step.
"""

from __future__ import annotations

import numpy as np

from moesim.replay.kernels.serving_state import (
    AREA_S,
    ARRIVAL_AT,
    ARRIVED,
    BLOCK,
    BLOCKS,
    BLOCKS_ALL,
    BLOCKS_S,
    CHUNKED,
    CLAIMED,
    COMPUTED,
    DECODE_TURN,
    DECODERS,
    DONE,
    ENDED,
    EVENTS,
    FINAL,
    FINISHED,
    FINISHED_ALL,
    FIRST,
    FIRST_AT,
    FREE,
    GAP_FIRST_S,
    GAP_RATIO,
    GAP_SUM_S,
    GAPS,
    HELD,
    HOME,
    IDENT,
    IN_SYSTEM,
    INTERVAL_S,
    INTERVALS,
    LAST_AT,
    LAST_BIN,
    LAST_GAP_S,
    LEAST,
    NOW,
    OUTPUT,
    PASSED,
    PREEMPTED,
    PRODUCED,
    PROMPT,
    REJECTED,
    ROW,
    RUNNING,
    RUNNING_S,
    SCHEDULED,
    SCHEDULED_AT,
    SEQUENCE,
    SHARED,
    SOURCE,
    TAKERS,
    TOKENS,
    TOKENS_MOST,
    TURN,
    USERS,
    WAITING,
    WAITING_S,
    WANTS_REQUESTS,
    WANTS_ROOM,
    WANTS_SLOTS,
    Ended,
    Events,
    Replicas,
    Rules,
    Scalars,
    Scratch,
    Slots,
    Stretch,
    Use,
)
from moesim.replay.kernels.serving_steps import append, has_work, is_through, plan, release, shared_tokens, step_s
from moesim.setup.serving import Routing, StepCosts


def serve(
    costs: StepCosts, routing: Routing, rules: Rules, stretch: Stretch, slots: Slots, replicas: Replicas,
    events: Events, use: Use, scratch: Scratch, ended: Ended, scalars: Scalars,
) -> int:  # fmt: skip
    """Run until all is done, or until something is wanted: more requests, room for ended ones, slots."""
    while True:
        first = _first_to_end(replicas)
        step = replicas.end_s[first]
        event = events.time_s[0] if scalars.number[EVENTS] > 0 else np.inf
        arrival = _next_arrival(rules, stretch, scalars)
        if arrival < 0:
            return WANTS_REQUESTS
        now = min(arrival, min(event, step))
        if now > scalars.second[NOW]:
            _start_steps(costs, routing, rules, slots, replicas, use, scratch, scalars)
            if replicas.end_s[_first_to_end(replicas)] < step:
                continue
            if now == np.inf:
                return DONE
            _advance(use, scalars, now)
        if scalars.number[FREE] == 0 and min(arrival, event) <= now:
            return WANTS_SLOTS
        if scalars.number[ENDED] + replicas.running.shape[1] >= len(ended.number):
            return WANTS_ROOM
        if arrival <= now:
            _arrive(rules, stretch, slots, replicas, events, use, scalars)
        elif event <= now:
            _take_event(rules, stretch, slots, replicas, events, use, scalars)
        else:
            _end_step(rules, stretch, slots, replicas, events, use, ended, scalars, first)


def _first_to_end(replicas: Replicas) -> int:
    """The replica whose step ends first (the first of them)."""
    first = 0
    for replica in range(1, len(replicas.end_s)):
        if replicas.end_s[replica] < replicas.end_s[first]:
            first = replica
    return first


def _next_arrival(rules: Rules, stretch: Stretch, scalars: Scalars) -> float:
    """When the next request of an open workload comes; infinite: none does; below 0: the next stretch says."""
    if rules.limit[USERS] > 0:
        return np.inf
    if scalars.number[ROW] < len(stretch.arrival_s):
        arrival: float = stretch.arrival_s[scalars.number[ROW]]
        return arrival
    return np.inf if rules.limit[FINAL] > 0 else -1.0


def _start_steps(
    costs: StepCosts, routing: Routing, rules: Rules, slots: Slots, replicas: Replicas, use: Use, scratch: Scratch,
    scalars: Scalars,
) -> None:  # fmt: skip
    for replica in range(len(replicas.end_s)):
        if replicas.end_s[replica] == np.inf and has_work(replicas, replica):
            tokens = plan(costs, routing, rules, slots, replicas, scratch, scalars, replica)
            if tokens == 0:  # the only one that ran was taken back, and now there is room
                tokens = plan(costs, routing, rules, slots, replicas, scratch, scalars, replica)
            if tokens > 0:
                taken = step_s(costs, routing, slots, replicas, use, scratch, scalars, replica, tokens)
                replicas.end_s[replica] = scalars.second[NOW] + taken
                replicas.busy_s[replica] += taken
                replicas.steps[replica] += 1


def _advance(use: Use, scalars: Scalars, now: float) -> None:
    """Move the clock, and add up what the time since the last event saw."""
    number, second = scalars.number, scalars.second
    if number[FIRST] == 0:
        second[NOW] = now
        return
    second[AREA_S] += (now - second[NOW]) * number[IN_SYSTEM]
    while now >= INTERVALS * second[INTERVAL_S]:
        _halve(use)
        second[INTERVAL_S] *= 2
    place = int(second[NOW] / second[INTERVAL_S])
    while second[NOW] < now:
        place = int(second[NOW] / second[INTERVAL_S])
        end = min(now, (place + 1) * second[INTERVAL_S])
        if end <= second[NOW]:  # the clock stands on a border, and the division came out below it
            end = now
        passed = end - second[NOW]
        use.timeline[place, WAITING_S] += passed * number[WAITING]
        use.timeline[place, RUNNING_S] += passed * number[RUNNING]
        use.timeline[place, BLOCKS_S] += passed * number[BLOCKS]
        second[NOW] = end


def _halve(use: Use) -> None:
    """Pairs of the timeline's intervals become one."""
    for column in range(use.timeline.shape[1]):
        for place in range(INTERVALS // 2):
            use.timeline[place, column] = use.timeline[2 * place, column] + use.timeline[2 * place + 1, column]
        for place in range(INTERVALS // 2, INTERVALS):
            use.timeline[place, column] = 0.0


def _note(use: Use, scalars: Scalars, column: int, amount: float) -> None:
    while scalars.second[NOW] >= INTERVALS * scalars.second[INTERVAL_S]:
        _halve(use)
        scalars.second[INTERVAL_S] *= 2
    use.timeline[int(scalars.second[NOW] / scalars.second[INTERVAL_S]), column] += amount


def _arrive(
    rules: Rules, stretch: Stretch, slots: Slots, replicas: Replicas, events: Events, use: Use, scalars: Scalars
) -> None:
    """The next request of the stretch comes; one that could never run is turned away."""
    row, number = scalars.number[ROW], scalars.number
    number[ROW] += 1
    number[FIRST] += 1
    prompt, output, size = stretch.prompt[row], stretch.output[row], rules.limit[BLOCK]
    shared = shared_tokens(rules, prompt)
    whole = (prompt + output - 1 - shared + size - 1) // size + rules.limit[SHARED] // size
    if whole > rules.limit[BLOCKS_ALL] or (rules.limit[CHUNKED] == 0 and prompt + output > rules.limit[TOKENS_MOST]):
        number[REJECTED] += 1
        _think(rules, stretch, events, scalars)
        return
    number[FREE] -= 1
    slot = slots.free[number[FREE]]
    slots.number[slot, IDENT] = number[FIRST] - 1
    slots.number[slot, PROMPT] = prompt
    slots.number[slot, OUTPUT] = output
    slots.number[slot, SOURCE] = stretch.source[row]
    slots.number[slot, COMPUTED] = shared
    slots.number[slot, PRODUCED] = 0
    slots.number[slot, HELD] = 0
    slots.number[slot, SCHEDULED] = 0
    slots.number[slot, PREEMPTED] = 0
    slots.number[slot, PASSED] = 0
    slots.second[slot, ARRIVAL_AT] = scalars.second[NOW]
    slots.second[slot, SCHEDULED_AT] = -1.0
    number[IN_SYSTEM] += 1
    home = _route(rules, replicas, scalars, TURN, 0, rules.limit[TAKERS])
    slots.number[slot, HOME] = home
    replicas.present[home] += 1
    append(slots, replicas, scalars, home, slot)
    _note(use, scalars, ARRIVED, 1.0)


def _route(rules: Rules, replicas: Replicas, scalars: Scalars, turn: int, first: int, count: int) -> int:
    """In turn, or to the replica with the fewest requests (the first of them)."""
    if rules.limit[LEAST] == 0:
        chosen = first + scalars.number[turn]
        scalars.number[turn] = (scalars.number[turn] + 1) % count
        return chosen
    chosen = first
    for replica in range(first + 1, first + count):
        if replicas.present[replica] < replicas.present[chosen]:
            chosen = replica
    return chosen


def _take_event(
    rules: Rules, stretch: Stretch, slots: Slots, replicas: Replicas, events: Events, use: Use, scalars: Scalars
) -> None:
    """A user sends a request, or a KV cache reaches a decoding replica."""
    slot = _pop(events, scalars)
    if slot < 0:
        _arrive(rules, stretch, slots, replicas, events, use, scalars)
        return
    left = slots.number[slot, HOME]
    release(slots, replicas, scalars, left, slot)
    replicas.present[left] -= 1
    home = _route(rules, replicas, scalars, DECODE_TURN, rules.limit[TAKERS], rules.limit[DECODERS])
    slots.number[slot, HOME] = home
    replicas.present[home] += 1
    append(slots, replicas, scalars, home, slot)


def _end_step(
    rules: Rules, stretch: Stretch, slots: Slots, replicas: Replicas, events: Events, use: Use, ended: Ended,
    scalars: Scalars, replica: int,
) -> None:  # fmt: skip
    """Every request of the step has its tokens computed; those that lack none get their next one."""
    replicas.end_s[replica] = np.inf
    kept = 0
    for place in range(replicas.count[replica]):
        slot = replicas.running[replica, place]
        number = slots.number
        number[slot, COMPUTED] += number[slot, SCHEDULED]
        stays = True
        if number[slot, SCHEDULED] > 0 and number[slot, COMPUTED] == number[slot, PROMPT] + number[slot, PRODUCED]:
            _emit(slots, use, scalars, slot)
            if is_through(slots, slot):
                _leave(rules, stretch, slots, replicas, events, use, ended, scalars, replica, slot)
                stays = False
            elif rules.limit[DECODERS] > 0 and replica < rules.limit[TAKERS]:
                _send(rules, slots, replicas, events, scalars, replica, slot)
                stays = False
        number[slot, SCHEDULED] = 0
        if stays:
            replicas.running[replica, kept] = slot
            kept += 1
    scalars.number[RUNNING] -= replicas.count[replica] - kept
    replicas.count[replica] = kept


def _emit(slots: Slots, use: Use, scalars: Scalars, slot: int) -> None:
    """A request's next token."""
    now = scalars.second[NOW]
    if slots.number[slot, PRODUCED] == 0:
        slots.second[slot, FIRST_AT] = now
    else:
        gap = now - slots.second[slot, LAST_AT]
        if gap != scalars.second[LAST_GAP_S]:
            scalars.second[LAST_GAP_S] = gap
            place = int(np.log(max(gap, GAP_FIRST_S) / GAP_FIRST_S) / np.log(GAP_RATIO))
            scalars.number[LAST_BIN] = min(place, len(use.gap) - 1)
        use.gap[scalars.number[LAST_BIN]] += 1
        scalars.second[GAP_SUM_S] += gap
        scalars.number[GAPS] += 1
    slots.second[slot, LAST_AT] = now
    slots.number[slot, PRODUCED] += 1
    _note(use, scalars, TOKENS, 1.0)


def _send(
    rules: Rules, slots: Slots, replicas: Replicas, events: Events, scalars: Scalars, replica: int, slot: int
) -> None:
    """A prefilled request's KV cache goes to a decoding replica, one transfer of a replica after the other."""
    tokens = slots.number[slot, COMPUTED]
    start = max(scalars.second[NOW], replicas.link_s[replica])
    replicas.link_s[replica] = start + (rules.transfer[0] + rules.transfer[1] * tokens)
    _push(events, scalars, replicas.link_s[replica], slot)


def _leave(
    rules: Rules, stretch: Stretch, slots: Slots, replicas: Replicas, events: Events, use: Use, ended: Ended,
    scalars: Scalars, replica: int, slot: int,
) -> None:  # fmt: skip
    """A request is through."""
    release(slots, replicas, scalars, replica, slot)
    row, number = scalars.number[ENDED], slots.number
    for column in range(4):
        ended.second[row, column] = slots.second[slot, column]
    ended.number[row, 0] = number[slot, IDENT]
    ended.number[row, 1] = number[slot, PROMPT]
    ended.number[row, 2] = number[slot, OUTPUT]
    ended.number[row, 3] = number[slot, PREEMPTED]
    ended.number[row, 4] = number[slot, HOME]
    scalars.number[ENDED] += 1
    scalars.number[FINISHED_ALL] += 1
    scalars.number[IN_SYSTEM] -= 1
    replicas.present[replica] -= 1
    slots.free[scalars.number[FREE]] = slot
    scalars.number[FREE] += 1
    _note(use, scalars, FINISHED, 1.0)
    _think(rules, stretch, events, scalars)


def _think(rules: Rules, stretch: Stretch, events: Events, scalars: Scalars) -> None:
    """In a closed loop, a user whose request has left the system comes back with the next one."""
    if rules.limit[USERS] > 0 and scalars.number[CLAIMED] < len(stretch.arrival_s):
        think = stretch.arrival_s[scalars.number[CLAIMED]]
        scalars.number[CLAIMED] += 1
        _push(events, scalars, scalars.second[NOW] + think, -1)


def _push(events: Events, scalars: Scalars, time: float, what: int) -> None:
    """Into the heap, behind what comes at the same time."""
    place = scalars.number[EVENTS]
    scalars.number[EVENTS] += 1
    scalars.number[SEQUENCE] += 1
    while place > 0:
        above = (place - 1) >> 1
        if events.time_s[above] <= time:
            break
        _move(events, place, above)
        place = above
    events.time_s[place] = time
    events.sequence[place] = scalars.number[SEQUENCE]
    events.what[place] = what


def _pop(events: Events, scalars: Scalars) -> int:
    """The first event's slot."""
    found = events.what[0]
    scalars.number[EVENTS] -= 1
    count = scalars.number[EVENTS]
    time, sequence = events.time_s[count], events.sequence[count]
    what, place = events.what[count], 0
    while 2 * place + 1 < count:
        child = 2 * place + 1
        if child + 1 < count and _before(events, child + 1, events.time_s[child], events.sequence[child]):
            child += 1
        if not _before(events, child, time, sequence):
            break
        _move(events, place, child)
        place = child
    events.time_s[place] = time
    events.sequence[place] = sequence
    events.what[place] = what
    return found


def _before(events: Events, place: int, time: float, sequence: int) -> bool:
    """Whether an event comes before a moment."""
    return events.time_s[place] < time or (events.time_s[place] == time and events.sequence[place] < sequence)


def _move(events: Events, to: int, place: int) -> None:
    events.time_s[to] = events.time_s[place]
    events.sequence[to] = events.sequence[place]
    events.what[to] = events.what[place]
