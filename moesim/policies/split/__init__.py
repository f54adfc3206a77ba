"""Splits, one file each: how a cache that has a part for each layer (``scope: layer``) is shared out. Their contract::

    class Params(PolicyParams)
    needs_training = True                 where `facts.uses`, `demand` or `hits` is read
    def slots(params, facts) -> array     experts of space for each layer, at least 1 each, `facts.slots` in all at most

They learn from the training split only. ``equal`` is the shortest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SplitFacts:
    """What a split knows.

    Attributes:
        num_layers, num_experts, top_k: of the language model's MoE layers.
        slots: experts of space in all.
        uses: activations of each expert in the training split. [layers, experts]
        demand: distinct experts that a decode step of the training split uses, in the mean. [layers]
        hits: LRU's hits in the training split in a layer with 0, 1, 2, … experts of space. [layers, experts + 1]
        accuracy: how often the next-layer gate's first choice was right in the training split; None: not recorded.
            [layers]
    """

    num_layers: int
    num_experts: int
    top_k: int
    slots: int
    uses: Floats
    demand: Floats
    hits: Floats
    accuracy: Floats | None = None


def in_proportion(weights: ArrayLike, facts: SplitFacts) -> Ints:
    """Slots in proportion to ``weights``, each layer at least 1 and at most all its experts. [layers]"""
    weight = np.asarray(weights, dtype=np.float64)
    weight = weight if weight.sum() > 0 else np.ones_like(weight)
    total = min(facts.slots, facts.num_layers * facts.num_experts)
    chosen = np.ones(facts.num_layers, dtype=np.int64)
    while (left := total - int(chosen.sum())) > 0:
        open_ = chosen < facts.num_experts
        share = np.where(open_, weight, 0.0)
        share = share if share.sum() > 0 else open_.astype(np.float64)
        wanted = total * share / share.sum() - chosen
        gets = np.argsort(-np.where(open_, wanted, -np.inf), kind="stable")[:left]
        # Each round gives one slot to the layers furthest below their share.
        chosen[gets[: max(1, int((wanted[gets] >= 1).sum()))]] += 1
    return chosen


def least_cost(cost: Sequence[Sequence[float]] | Floats, slots: int) -> Ints:
    """The split with the least sum of costs, by dynamic programming; of equals, fewer slots for early layers.

    Args:
        cost: of each layer with 0, 1, 2, … slots; every layer gets at least 1. [layers, most slots + 1]
    """
    table = np.asarray(cost, dtype=np.float64)
    layers, most = table.shape[0], table.shape[1] - 1
    best = np.full(slots + 1, np.inf)
    best[0] = 0.0
    choice = np.zeros((layers, slots + 1), dtype=np.int64)
    for layer in range(layers):
        following = np.full(slots + 1, np.inf)
        for given in range(1, min(most, slots) + 1):
            total = best[: slots + 1 - given] + table[layer, given]
            better = total < following[given:]
            following[given:][better] = total[better]
            choice[layer, given:][better] = given
        best = following
    left, chosen = int(np.argmin(best)), np.zeros(layers, dtype=np.int64)
    for layer in range(layers - 1, -1, -1):
        chosen[layer] = choice[layer, left]
        left -= int(chosen[layer])
    return chosen
