"""Who sends what to whom: one MoE layer's (token, expert) pairs under a placement, counted one by one.

A token's *home* is the GPU that holds its hidden state; its experts' slots decide where copies of it go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.setup.placement import Placement

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Choice = Literal["even", "nearest", "split"]
#: Tokens times targets up to which a table of marks is faster than sorting.
MOST_MARKS = 2**25
#: Shares of an expert's tokens over its slots, from the tokens of each expert. [slots]
Split = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Homes:
    """GPUs of a stage, as counting needs them.

    Attributes:
        gpus: in all; ``shards`` of them, next to each other, are one expert-parallel rank.
        node_of: of each GPU. [gpus]
    """

    gpus: int
    shards: int
    node_of: Ints

    @property
    def ranks(self) -> int:
        """Expert-parallel ranks."""
        return self.gpus // self.shards

    @property
    def node_of_rank(self) -> Ints:
        """The node of each rank's first GPU. [ranks]"""
        return self.node_of[:: self.shards]


@dataclass(frozen=True)
class Traffic:
    """One layer's pairs, after drops.

    Attributes:
        pairs: home -> GPU, a copy for each of a token's experts. [gpus, gpus]
        copies: the same, once for each GPU that a token goes to. [gpus, gpus]
        node_copies: once for each node. [gpus, nodes]
        slot_pairs: pairs of each slot. [slots]
        target: the GPU of each of a token's experts, -1 where there is none. [tokens, top_k]
        dropped: pairs beyond the capacity.
    """

    pairs: Ints
    copies: Ints
    node_copies: Ints
    slot_pairs: Ints
    target: Ints
    dropped: int


class Counter:
    """Counts the traffic of layers under one placement.

    Args:
        choice: which copy of an expert a token goes to: ``even`` (in turn), ``nearest`` (on its GPU, else on its node,
            else in turn), ``split`` (by the policy's shares).
        capacity: most pairs that one GPU sends to one expert; None: all of them (dropless).
    """

    def __init__(self, homes: Homes, placement: Placement, choice: Choice = "even", capacity: int | None = None):
        self.homes, self.placement, self.choice, self.capacity = homes, placement, choice, capacity
        self.nodes = int(homes.node_of.max()) + 1

    def count(self, layer: int, experts: Ints, split: Split | None = None, homes: Ints | None = None) -> Traffic:
        """The traffic of one layer.

        Args:
            experts: of the tokens of each GPU; -1 where there is none. [gpus, tokens, top_k]
            homes: the GPU that holds each token; default: the one that ``experts`` lists it under. [gpus * tokens]
        """
        gpus, tokens, top_k = experts.shape
        token_home = np.repeat(np.arange(gpus), tokens) if homes is None else homes
        home = np.repeat(token_home, top_k)
        flat = experts.reshape(-1)
        keep = flat >= 0
        dropped = 0
        if self.capacity is not None:
            within = _rank_in_group(np.where(keep, home * self.placement.num_experts + flat, -1)) < self.capacity
            dropped = int((keep & ~within).sum())
            keep &= within
        slot = self._slots(layer, np.where(keep, flat, 0), home, top_k, split)
        rank = self.placement.rank[layer][slot]
        target = rank * self.homes.shards + home % self.homes.shards
        pairs = np.bincount(home[keep] * gpus + target[keep], minlength=gpus * gpus).reshape(gpus, gpus)
        target = np.where(keep, target, -1).reshape(gpus * tokens, top_k)
        copies = _distinct(token_home, target, gpus, gpus, homes is None)
        node = np.where(target >= 0, self.homes.node_of[target], -1)
        return Traffic(
            pairs=pairs,
            copies=copies,
            node_copies=_distinct(token_home, node, gpus, self.nodes, homes is None)
            if self.nodes > 1
            else copies[:, :0],
            slot_pairs=np.bincount(slot[keep], minlength=self.placement.num_slots),
            target=target,
            dropped=dropped,
        )

    def _slots(self, layer: int, expert: Ints, home: Ints, top_k: int, split: Split | None) -> Ints:
        """The slot that each pair goes to. [pairs]"""
        copies, slots = self.placement.copies[layer], self.placement.slots_of[layer]
        if slots.shape[1] == 1:
            return np.asarray(slots[expert, 0])
        if self.choice == "split" and split is not None:
            return self._by_share(layer, expert, split)
        if self.choice == "nearest":
            return np.asarray(self._nearest(layer)[home, expert])
        turn = np.arange(len(expert)) // top_k
        return np.asarray(slots[expert, turn % copies[expert]])

    def _nearest(self, layer: int) -> Ints:
        """The slot that each GPU uses of each expert. [gpus, experts]"""
        slots, copies = self.placement.slots_of[layer], self.placement.copies[layer]
        rank = self.placement.rank[layer][slots]  # [experts, copies]
        gpu = np.arange(self.homes.gpus)
        own = rank[None] == (gpu // self.homes.shards)[:, None, None]
        near = self.homes.node_of_rank[rank][None] == self.homes.node_of[:, None, None]
        in_turn = np.arange(slots.shape[1])[None, None] == (gpu[:, None] % copies[None])[:, :, None]
        best = np.argmax(4 * own + 2 * near + in_turn, axis=2)
        return np.asarray(slots[np.arange(len(slots))[None], best])

    def _by_share(self, layer: int, expert: Ints, split: Split) -> Ints:
        """Pairs of an expert in order, cut into its slots' shares."""
        load = np.bincount(expert, minlength=self.placement.num_experts).astype(np.float64)
        share = split(load)[self.placement.slots_of[layer]]
        most = share.shape[1]
        unused = np.arange(most)[None] >= self.placement.copies[layer][:, None]
        ends = np.cumsum(np.where(unused, 0.0, share), axis=1)
        position = (_rank_in_group(expert) + 0.5) / load[expert]
        chosen = np.minimum((position[:, None] > ends[expert] - 1e-12).sum(axis=1), most - 1)
        return np.asarray(self.placement.slots_of[layer][expert, chosen])


def balanced(tokens: int, gpus: int, top_k: int, experts: int) -> Ints:
    """Experts that load every GPU alike: token t of GPU g takes experts ``(g tokens + t) k + i`` modulo E."""
    first = np.arange(gpus * tokens) * top_k
    return ((first[:, None] + np.arange(top_k)) % experts).reshape(gpus, tokens, top_k)


def _rank_in_group(code: Ints) -> Ints:
    """How many equal entries stand before each. [entries]"""
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(code)))
    rank = np.empty(len(code), dtype=np.int64)
    rank[order] = np.arange(len(code)) - np.repeat(starts, sizes)
    return rank


def _distinct(home: Ints, target: Ints, rows: int, columns: int, even: bool) -> Ints:
    """Tokens of each home that go to each target, each once. [rows, columns]

    Args:
        home: of each token. [tokens]
        target: -1 where there is none. [tokens, top_k]
        even: homes ascend, and each has equally many tokens.
    """
    if even and len(target) * (columns + 1) <= MOST_MARKS:
        marked = np.zeros((len(target), columns + 1), dtype=bool)
        marked[np.arange(len(target))[:, None], target] = True  # -1 marks the last column
        return np.asarray(marked[:, :columns].reshape(rows, -1, columns).sum(axis=1), dtype=np.int64)
    ordered = np.sort(target, axis=1)
    new = ordered >= 0
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    code = (home[:, None] * columns + ordered)[new]
    return np.bincount(code, minlength=rows * columns).reshape(rows, columns)
