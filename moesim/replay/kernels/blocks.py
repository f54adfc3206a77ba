"""A block of routing to the activations and lookups of its visits, and their hits to counts by layer."""

from __future__ import annotations

from typing import Any

#: Rows of ``totals``.
ACTIVATIONS, LOOKUPS, HITS, FETCHED_BYTES = range(4)


def unpack(block: Any, row_start: Any, num_experts: int, key: Any, start: Any) -> int:
    """Write each visit's keys and where they begin; ``num_experts`` and above is no expert.

    Args:
        block: [tokens, layers, top_k]
        row_start: the tokens of step s are ``row_start[s]:row_start[s + 1]``. [steps + 1]
        key, start: room for all. [activations], [visits + 1]

    Returns:
        How many activations there are.
    """
    count = visit = 0
    for step in range(len(row_start) - 1):
        for layer in range(block.shape[1]):
            start[visit] = count
            visit += 1
            for token in range(row_start[step], row_start[step + 1]):
                for slot in range(block.shape[2]):
                    expert = block[token, layer, slot]
                    if expert < num_experts:
                        key[count] = layer * num_experts + expert
                        count += 1
    start[visit] = count
    return count


def distinct(layers: int, is_prefill: Any, start: Any, key: Any, seen: Any, lookup_start: Any, lookup_key: Any) -> int:
    """Write each visit's lookups: its distinct keys, by first use, in prefill by last use.

    Args:
        is_prefill: [steps]
        start, key: each visit's activations.
        seen: the visit in which each key was seen last, -1 at first. [keys]
        lookup_start, lookup_key: room for all. [visits + 1], [activations]

    Returns:
        How many lookups there are.
    """
    count = 0
    for visit in range(len(start) - 1):
        lookup_start[visit] = count
        begin, end = start[visit], start[visit + 1]
        backwards = is_prefill[visit // layers]
        for place in range(begin, end):
            used = key[begin + end - 1 - place] if backwards else key[place]
            if seen[used] != visit:
                seen[used] = visit
                lookup_key[count] = used
                count += 1
        if backwards:
            first, last = lookup_start[visit], count - 1
            while first < last:
                lookup_key[first], lookup_key[last] = lookup_key[last], lookup_key[first]
                first += 1
                last -= 1
    lookup_start[len(start) - 1] = count
    return count


def tally(start: Any, lookup_start: Any, lookup_key: Any, hit: Any, sizes: Any, counted: Any, totals: Any) -> None:
    """Add what the visits of the counted steps did to the totals of their layers.

    Args:
        start: each visit's activations. [visits + 1]
        lookup_start, lookup_key, hit: each visit's lookups.
        counted: [steps]
        totals: ACTIVATIONS, LOOKUPS, HITS, FETCHED_BYTES. [4, layers]
    """
    layers = totals.shape[1]
    for visit in range(len(start) - 1):
        if not counted[visit // layers]:
            continue
        begin, end, layer = lookup_start[visit], lookup_start[visit + 1], visit % layers
        found = 0
        fetched = 0
        for lookup in range(begin, end):
            found += hit[lookup]
            fetched += 0 if hit[lookup] else sizes[lookup_key[lookup]]
        totals[ACTIVATIONS, layer] += start[visit + 1] - start[visit]
        totals[LOOKUPS, layer] += end - begin
        totals[HITS, layer] += found
        totals[FETCHED_BYTES, layer] += fetched
