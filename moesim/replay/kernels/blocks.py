"""A block of routing to the keys of its activations, and their hits to counts by layer."""

from __future__ import annotations

from typing import Any


def unpack(block: Any, num_experts: int, key: Any, start: Any) -> int:
    """Write each visit's keys and where they begin; ``num_experts`` and above is no expert.

    Args:
        block: [tokens, layers, top_k]
        key, start: room for all. [activations], [visits + 1]

    Returns:
        How many activations there are.
    """
    tokens, layers, top_k = block.shape
    count = 0
    for token in range(tokens):
        for layer in range(layers):
            start[token * layers + layer] = count
            for slot in range(top_k):
                expert = block[token, layer, slot]
                if expert < num_experts:
                    key[count] = layer * num_experts + expert
                    count += 1
    start[tokens * layers] = count
    return count


def tally(start: Any, visits: int, hit: Any, activations: Any, hits: Any) -> None:
    """Add the visits' activations and hits to those of their layers. [layers] each"""
    layers = len(hits)
    for visit in range(visits):
        begin, end = start[visit], start[visit + 1]
        found = 0
        for place in range(begin, end):
            found += hit[place]
        layer = visit % layers
        activations[layer] += end - begin
        hits[layer] += found
