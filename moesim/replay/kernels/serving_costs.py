"""What a step of a serving replica takes: tables, and straight lines between their points.

Every lookup also counts which entries it used, weighted as it used them: the breakdown and the evidence of a run follow
from these counts, and the seconds of a run are their scalar product with the tables.
"""

from __future__ import annotations

from typing import Any

from moesim.setup.serving import StepCosts


def below(axis: Any, value: float) -> int:
    """The last place, but the very last, of an ascending axis that is not above ``value`` (the first if all are)."""
    low, high = 0, len(axis) - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if axis[middle] <= value:
            low = middle
        else:
            high = middle
    return low


def part_above(axis: Any, place: int, value: float) -> float:
    """How far ``value`` lies from the axis's place to the next one; beyond the ends, straight on."""
    return (value - axis[place]) / (axis[place + 1] - axis[place])


def decode_s(costs: StepCosts, use: Any, requests: int, keys: int) -> float:
    """Attention of decoding requests that see so many positions together."""
    if requests == 0:
        return 0.0
    mean = keys / requests
    place = below(costs.context, mean)
    part = part_above(costs.context, place, mean)
    use[requests, place] += 1.0 - part
    use[requests, place + 1] += part
    return costs.decode_s[requests, place] * (1.0 - part) + costs.decode_s[requests, place + 1] * part


def prefill_s(costs: StepCosts, use: Any, tokens: int, pairs: float) -> float:
    """Attention of prompt tokens that see so many positions together."""
    if tokens == 0:
        return 0.0
    span = pairs / tokens
    row = below(costs.query, tokens)
    down = part_above(costs.query, row, tokens)
    column = below(costs.span, span)
    right = part_above(costs.span, column, span)
    use[row, column] += (1.0 - down) * (1.0 - right)
    use[row, column + 1] += (1.0 - down) * right
    use[row + 1, column] += down * (1.0 - right)
    use[row + 1, column + 1] += down * right
    table = costs.prefill_s
    upper = table[row, column] * (1.0 - right) + table[row, column + 1] * right
    lower = table[row + 1, column] * (1.0 - right) + table[row + 1, column + 1] * right
    return upper * (1.0 - down) + lower * down


def expert_s(costs: StepCosts, tokens: int, pairs: int, distinct: int) -> float:
    """Routed experts of one layer on one rank."""
    place = below(costs.load, pairs)
    part = part_above(costs.load, place, pairs)
    table = costs.expert_s
    on_rank = table[place, distinct] * (1.0 - part) + table[place + 1, distinct] * part
    return on_rank + costs.token_s[0] * (tokens - pairs * costs.share[0])


def count_experts(costs: StepCosts, use: Any, pairs: int, distinct: int, layers: float) -> None:
    """Note what :func:`expert_s` used, in so many layers."""
    place = below(costs.load, pairs)
    part = part_above(costs.load, place, pairs)
    use[place, distinct] += layers * (1.0 - part)
    use[place + 1, distinct] += layers * part
