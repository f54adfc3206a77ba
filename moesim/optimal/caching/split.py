"""How many slots each layer gets of a common budget, when each has a cache of its own: exact.

A layer's fewest fetches fall convexly with its slots (they are the value of a linear program in its right side), so
giving every next slot to the layer that gains most is optimal.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from moesim.errors import MoesimError
from moesim.optimal.answer import Answer, Stopwatch, answer
from moesim.optimal.caching.fewest import fewest
from moesim.optimal.caching.requests import Model, Requests


@dataclass(frozen=True)
class Split:
    """Slots of each layer, and the fetches that they leave. [layers]"""

    answer: Answer
    slots: list[int]
    fetches: list[int]


def best_split(requests: Requests, num_layers: int, slots: int, model: Model = "together") -> Split:
    """Split ``slots`` over the layers so that all together fetch least.

    Raises:
        MoesimError: they do not hold the largest set of every layer.
    """
    clock = Stopwatch()
    layers = [requests.of_layer(layer, num_layers) for layer in range(num_layers)]
    given = [layer.largest_set if model == "together" else 0 for layer in layers]
    if (least := sum(given)) > slots:
        told = f"{slots} slots do not hold the largest set of each layer"
        raise MoesimError.of("caching", told, f"at least {least} slots")
    fetches = [int(fewest(layer, count, model).sum()) for layer, count in zip(layers, given, strict=True)]
    left = slots - least
    gains: list[tuple[int, int, int]] = []

    def offer(number: int) -> None:
        layer = layers[number]
        if given[number] < layer.num_keys:
            after = int(fewest(layer, given[number] + 1, model).sum())
            heapq.heappush(gains, (after - fetches[number], number, after))

    for number in range(num_layers):
        offer(number)
    while left and gains:
        _, number, after = heapq.heappop(gains)
        given[number] += 1
        fetches[number] = after
        left -= 1
        offer(number)
    total = float(sum(fetches))
    found = answer("fetches", "fetches", value=total, bound=total, solver="greedy on convex curves")
    return Split(clock.stamp(found), given, fetches)
