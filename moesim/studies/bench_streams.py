"""The streams that ``moesim bench`` replays: seeded, so that everybody measures the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.traces import RoutingTrace
from moesim.traces.card import TraceCard
from moesim.traces.trace import DECODE, expert_dtype

ZIPF, REPEAT = 0.8, 0.3
BLOCK_TOKENS = 4096


@dataclass(frozen=True)
class Stream:
    """Routing of so many tokens: popularity by Zipf's law in each layer, and some experts stay from the last token.

    Attributes:
        slots: experts that a cache of the benchmark holds.
        tokens: so that there are a little more than 20 million activations.
    """

    name: str
    layers: int
    experts: int
    top_k: int
    slots: int
    tokens: int

    @property
    def num_keys(self) -> int:
        """(layer, expert) pairs."""
        return self.layers * self.experts

    @property
    def per_token(self) -> int:
        """Activations of a token."""
        return self.layers * self.top_k

    def blocks(self, tokens: int | None = None) -> Iterator[NDArray[Any]]:
        """The routing, block after block. Each [tokens, layers, top_k]"""
        rng = np.random.default_rng(1)
        share = np.arange(1, self.experts + 1) ** -ZIPF
        upto = np.cumsum(share / share.sum())
        popular = rng.permuted(np.tile(np.arange(self.experts), (self.layers, 1)), axis=1)
        tokens = self.tokens if tokens is None else tokens
        for first in range(0, tokens, BLOCK_TOKENS):
            shape = min(BLOCK_TOKENS, tokens - first), self.layers, self.top_k
            rank = np.minimum(np.searchsorted(upto, rng.random(shape)), self.experts - 1)
            drawn = np.take_along_axis(popular[None], rank.reshape(shape[0], self.layers, -1), axis=2)
            fresh = rng.random(shape) >= REPEAT
            source = np.maximum.accumulate(np.where(fresh, np.arange(shape[0])[:, None, None], 0), axis=0)
            yield _distinct(np.take_along_axis(drawn, source, axis=0), self.experts).astype(expert_dtype(self.experts))

    def trace(self, tokens: int) -> RoutingTrace:
        """The first tokens as a trace: one request that decodes."""
        card = TraceCard(
            name=self.name,
            model="synthetic",
            num_experts=self.experts,
            top_k=self.top_k,
            moe_layer_indices=list(range(self.layers)),
            origin="synthetic",
        )
        return RoutingTrace(
            card=card,
            experts=np.concatenate(list(self.blocks(tokens))),
            request=np.zeros(tokens, dtype=np.int32),
            position=np.arange(tokens, dtype=np.int32),
            phase=np.full(tokens, DECODE, dtype=np.uint8),
        )

    def keys(self) -> NDArray[np.int64]:
        """Every activation's key, in order. [activations]"""
        first = (np.arange(self.layers) * self.experts)[:, None]
        return np.concatenate([(block + first).reshape(-1) for block in self.blocks()])


MIX = Stream("mix", layers=32, experts=8, top_k=2, slots=128, tokens=312_500)
DS = Stream("ds", layers=58, experts=256, top_k=8, slots=3712, tokens=43_104)


def _distinct(experts: NDArray[np.int64], num_experts: int) -> NDArray[np.int64]:
    """A token's experts in a layer differ: who is there already gives way to the next one."""
    for slot in range(1, experts.shape[2]):
        while (taken := (experts[:, :, :slot] == experts[:, :, slot : slot + 1]).any(axis=2)).any():
            experts[taken, slot] = (experts[taken, slot] + 1) % num_experts
    return experts
