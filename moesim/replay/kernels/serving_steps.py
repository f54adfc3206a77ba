"""A replica's steps as a vLLM instance schedules them: running requests first, then waiting ones, within a budget.

Running requests come in the order in which they were admitted. One that finds no free KV block takes those of the last
one, which goes back to the head of the queue and computes everything anew. Where nothing was taken back, waiting
requests are admitted while tokens, places and blocks last: in order, or from a window at the head of the queue those
first that use the same experts as running ones.
"""

from __future__ import annotations

from typing import Any

from moesim.replay.kernels.distances import ones
from moesim.replay.kernels.serving_costs import count_experts, decode_s, expert_s, prefill_s
from moesim.replay.kernels.serving_state import (
    BLOCK,
    BLOCKS,
    CHUNKED,
    COMPUTED,
    HELD,
    MOST_BLOCKS,
    NEXT,
    NOW,
    OUTPUT,
    PASSED,
    PREEMPTED,
    PREEMPTIONS,
    PRODUCED,
    PROMPT,
    PROMPT_TOKENS,
    REQUESTS_MOST,
    RUNNING,
    SCHEDULED,
    SCHEDULED_AT,
    SHARED,
    SOURCE,
    TOKENS_MOST,
    WAITING,
    WINDOW,
    Replicas,
    Rules,
    Scalars,
    Scratch,
    Slots,
    Use,
)
from moesim.setup.serving import Routing, StepCosts


def append(slots: Slots, replicas: Replicas, scalars: Scalars, replica: int, slot: int) -> None:
    """Put a request at the end of a replica's queue."""
    slots.number[slot, NEXT] = -1
    if replicas.head[replica] < 0:
        replicas.head[replica] = slot
    else:
        slots.number[replicas.tail[replica], NEXT] = slot
    replicas.tail[replica] = slot
    replicas.waiting[replica] += 1
    scalars.number[WAITING] += 1


def release(slots: Slots, replicas: Replicas, scalars: Scalars, replica: int, slot: int) -> None:
    """Give a request's KV blocks back."""
    held = slots.number[slot, HELD]
    replicas.blocks[replica] += held
    scalars.number[BLOCKS] -= held
    slots.number[slot, HELD] = 0


def plan(
    costs: StepCosts, routing: Routing, rules: Rules, slots: Slots, replicas: Replicas, scratch: Scratch,
    scalars: Scalars, replica: int,
) -> int:  # fmt: skip
    """Decide how many tokens of each request the next step computes; returns how many altogether."""
    budget, preempted = rules.limit[TOKENS_MOST], 0
    place = 0
    while place < replicas.count[replica]:
        slot = replicas.running[replica, place]
        new = min(_left(slots, slot), budget)
        slots.number[slot, SCHEDULED] = 0
        if new > 0:
            taken = _take_blocks(rules, slots, replicas, scalars, replica, slot, new)
            preempted += taken
            if replicas.count[replica] > place:
                slots.number[slot, SCHEDULED] = new
                budget -= new
        place += 1
    if preempted == 0:
        budget = _admit(costs, routing, rules, slots, replicas, scratch, scalars, replica, budget)
    return rules.limit[TOKENS_MOST] - budget


def _left(slots: Slots, slot: int) -> int:
    """Tokens whose KV cache a request still lacks before its next one comes."""
    number = slots.number
    return number[slot, PROMPT] + number[slot, PRODUCED] - number[slot, COMPUTED]


def _lacking(rules: Rules, slots: Slots, slot: int, new: int) -> int:
    """KV blocks that a request needs and does not hold; blocks of the shared prefix are nobody's own."""
    size, shared = rules.limit[BLOCK], shared_tokens(rules, slots.number[slot, PROMPT])
    return (slots.number[slot, COMPUTED] + new - shared + size - 1) // size - slots.number[slot, HELD]


def shared_tokens(rules: Rules, prompt: int) -> int:
    """Tokens of a prompt whose KV cache is there already: whole blocks of the shared prefix, never the last token."""
    return min(rules.limit[SHARED], (prompt - 1) // rules.limit[BLOCK] * rules.limit[BLOCK])


def _take_blocks(
    rules: Rules, slots: Slots, replicas: Replicas, scalars: Scalars, replica: int, slot: int, new: int
) -> int:
    """Give a running request the blocks for ``new`` tokens, from the last ones if need be; returns how many of them
    went back to the queue (the request itself may be one).
    """
    preempted = 0
    lacking = _lacking(rules, slots, slot, new)
    while replicas.blocks[replica] < lacking:
        last = replicas.running[replica, replicas.count[replica] - 1]
        _preempt(rules, slots, replicas, scalars, replica, last)
        preempted += 1
        if last == slot:
            return preempted
    _hold(slots, replicas, scalars, replica, slot, lacking)
    return preempted


def _hold(slots: Slots, replicas: Replicas, scalars: Scalars, replica: int, slot: int, blocks: int) -> None:
    slots.number[slot, HELD] += blocks
    replicas.blocks[replica] -= blocks
    scalars.number[BLOCKS] += blocks
    scalars.number[MOST_BLOCKS] = max(scalars.number[MOST_BLOCKS], scalars.number[BLOCKS])


def _preempt(rules: Rules, slots: Slots, replicas: Replicas, scalars: Scalars, replica: int, slot: int) -> None:
    """The last running request goes to the head of the queue, its KV cache lost."""
    replicas.count[replica] -= 1
    scalars.number[RUNNING] -= 1
    release(slots, replicas, scalars, replica, slot)
    slots.number[slot, COMPUTED] = shared_tokens(rules, slots.number[slot, PROMPT])
    slots.number[slot, SCHEDULED] = 0
    slots.number[slot, PREEMPTED] += 1
    slots.number[slot, PASSED] = rules.limit[WINDOW]
    scalars.number[PREEMPTIONS] += 1
    slots.number[slot, NEXT] = replicas.head[replica]
    if replicas.head[replica] < 0:
        replicas.tail[replica] = slot
    replicas.head[replica] = slot
    replicas.waiting[replica] += 1
    scalars.number[WAITING] += 1


def _admit(
    costs: StepCosts, routing: Routing, rules: Rules, slots: Slots, replicas: Replicas, scratch: Scratch,
    scalars: Scalars, replica: int, budget: int,
) -> int:  # fmt: skip
    """Admit waiting requests while there is room; returns what is left of the budget."""
    while budget > 0 and replicas.head[replica] >= 0 and replicas.count[replica] < rules.limit[REQUESTS_MOST]:
        before = _before_next(costs, routing, rules, slots, replicas, scratch, replica)
        slot = replicas.head[replica] if before < 0 else slots.number[before, NEXT]
        left = _left(slots, slot)
        if left > budget and rules.limit[CHUNKED] == 0:
            break
        new = min(left, budget)
        lacking = _lacking(rules, slots, slot, new)
        if lacking > replicas.blocks[replica]:
            break
        _unlink(slots, replicas, replica, before, slot)
        replicas.waiting[replica] -= 1
        replicas.running[replica, replicas.count[replica]] = slot
        replicas.count[replica] += 1
        scalars.number[WAITING] -= 1
        scalars.number[RUNNING] += 1
        _hold(slots, replicas, scalars, replica, slot, lacking)
        if slots.second[slot, SCHEDULED_AT] < 0:
            slots.second[slot, SCHEDULED_AT] = scalars.second[NOW]
        slots.number[slot, SCHEDULED] = new
        budget -= new
    return budget


def _unlink(slots: Slots, replicas: Replicas, replica: int, before: int, slot: int) -> None:
    """Take a request out of the queue, from behind ``before``, which passes its head over; below 0: from its head."""
    following = slots.number[slot, NEXT]
    if before < 0:
        replicas.head[replica] = following
        return
    slots.number[replicas.head[replica], PASSED] += 1
    slots.number[before, NEXT] = following
    if following < 0:
        replicas.tail[replica] = before


def _before_next(
    costs: StepCosts, routing: Routing, rules: Rules, slots: Slots, replicas: Replicas, scratch: Scratch, replica: int
) -> int:
    """Which waiting request stands before the one to admit; below 0: it is the first.

    Of the window at the queue's head, the first of those whose liked experts add least to what running requests like.
    """
    first, window = replicas.head[replica], rules.limit[WINDOW]
    if window <= 1 or replicas.count[replica] == 0 or slots.number[first, PASSED] >= window:
        return -1
    scratch.liked[:, :] = 0
    for place in range(replicas.count[replica]):
        _add_liked(routing.liked, scratch.liked, slots.number[replicas.running[replica, place], SOURCE])
    chosen, least, before, slot = -1, -1.0, -1, first
    for _ in range(window):
        added = _added(costs, routing.liked, scratch.liked, slots.number[slot, SOURCE])
        if least < 0 or added < least:
            chosen, least = before, added
        before, slot = slot, slots.number[slot, NEXT]
        if slot < 0:
            break
    return chosen


def _add_liked(liked: Any, mask: Any, source: int) -> None:
    for layer in range(mask.shape[0]):
        for word in range(mask.shape[1]):
            mask[layer, word] |= liked[source, layer, word]


def _added(costs: StepCosts, liked: Any, mask: Any, source: int) -> float:
    """Experts that a source likes and the mask lacks, over all layers of the model."""
    added = 0.0
    for layer in range(mask.shape[0]):
        new = 0
        for word in range(mask.shape[1]):
            new += ones(liked[source, layer, word] & ~mask[layer, word])
        added += costs.layers[layer] * new
    return added


def step_s(
    costs: StepCosts, routing: Routing, slots: Slots, replicas: Replicas, use: Use, scratch: Scratch, scalars: Scalars,
    replica: int, tokens: int,
) -> float:  # fmt: skip
    """Seconds of the step that :func:`plan` has decided."""
    decoding, keys, prefilling, pairs, sequences, requests = 0, 0, 0, 0.0, 0, 0
    for place in range(replicas.count[replica]):
        slot = replicas.running[replica, place]
        new = slots.number[slot, SCHEDULED]
        if new == 0:
            continue
        requests += 1
        computed = slots.number[slot, COMPUTED]
        if new == 1 and computed > 0:
            decoding += 1
            keys += computed + 1
        else:
            prefilling += new
            pairs += new * computed + new * (new + 1) * 0.5
        sequences += new == _left(slots, slot)
    scalars.number[PROMPT_TOKENS] += prefilling
    use.dense[tokens] += 1.0
    use.head[sequences] += 1.0
    use.host[requests] += 1.0
    seconds = costs.dense_s[tokens] + costs.head_s[sequences] + costs.host_s[requests]
    seconds += decode_s(costs, use.decode, decoding, keys)
    seconds += prefill_s(costs, use.prefill, prefilling, pairs)
    if len(costs.layers) > 0:
        _gather(routing, slots, replicas, scratch, replica)
        seconds += _experts_s(costs, routing, use.expert, scratch, tokens)
    return seconds


def _gather(routing: Routing, slots: Slots, replicas: Replicas, scratch: Scratch, replica: int) -> None:
    """The experts of all the step's tokens, by layer."""
    scratch.mask[:, :] = 0
    scratch.pairs[:, :] = 0
    for place in range(replicas.count[replica]):
        slot = replicas.running[replica, place]
        source, prompt = slots.number[slot, SOURCE], slots.number[slot, PROMPT]
        first = slots.number[slot, COMPUTED]
        for token in range(first, first + slots.number[slot, SCHEDULED]):
            if token < prompt:
                low, start, high = routing.prompt_low[source], routing.prompt_start[source], routing.prompt_high[source]
                row = low + (start - low + token) % (high - low)
            else:
                low, start, high = routing.output_low[source], routing.output_start[source], routing.output_high[source]
                row = low + (start - low + token - prompt) % (high - low)
            _add_row(routing.mask, routing.pairs, scratch.mask, scratch.pairs, row)


def _add_row(masks: Any, pairs: Any, mask: Any, sums: Any, row: int) -> None:
    for layer in range(mask.shape[0]):
        for word in range(mask.shape[1]):
            mask[layer, word] |= masks[row, layer, word]
    if sums.shape[1] > 1:
        for layer in range(sums.shape[0]):
            for rank in range(sums.shape[1]):
                sums[layer, rank] += pairs[row, layer, rank]


def _experts_s(costs: StepCosts, routing: Routing, use: Any, scratch: Scratch, tokens: int) -> float:
    """Routed experts of all layers; in each, the rank that takes longest."""
    seconds, ranks = 0.0, scratch.pairs.shape[1]
    for layer in range(len(costs.layers)):
        longest, most_pairs, most_distinct = -1.0, 0, 0
        for rank in range(ranks):
            distinct = 0
            for word in range(scratch.mask.shape[1]):
                distinct += ones(scratch.mask[layer, word] & routing.ranks[rank, word])
            pairs = scratch.pairs[layer, rank] if ranks > 1 else tokens * costs.top_k[0]
            taken = expert_s(costs, tokens, pairs, distinct)
            if taken > longest:
                longest, most_pairs, most_distinct = taken, pairs, distinct
        seconds += costs.layers[layer] * longest
        count_experts(costs, use, most_pairs, most_distinct, costs.layers[layer])
    return seconds


def has_work(replicas: Replicas, replica: int) -> bool:
    """Whether a replica has a request at all."""
    return replicas.count[replica] > 0 or replicas.head[replica] >= 0


def is_through(slots: Slots, slot: int) -> bool:
    """Whether a request has all its tokens."""
    return slots.number[slot, PRODUCED] >= slots.number[slot, OUTPUT]
