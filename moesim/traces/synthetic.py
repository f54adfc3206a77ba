"""Traces out of chance, with four knobs for what makes routing cacheable. They stay marked as synthetic for ever."""

from __future__ import annotations

import zlib
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from moesim.traces.card import MAX_EXPERTS, TraceCard
from moesim.traces.checks import check
from moesim.traces.trace import DECODE, PREFILL, RoutingTrace, expert_dtype

Probability = Annotated[float, Field(ge=0, le=1)]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Lifts an expert above every one that popularity alone could choose.
_ABOVE = 1e6


class SyntheticRouting(BaseModel):
    """What :func:`synthesize` makes.

    Attributes:
        skew: Zipf exponent: in each layer the expert of rank r is chosen in proportion to r ** -skew; 0 is uniform.
        stickiness: probability that an expert of the token before (of the same request) stays chosen.
        affinity: probability that an expert brings its successor with it: each expert has one in the next layer.
        drift: probability, at each token, that a request's topic changes: its popularity order is drawn anew.
        seed: the same seed gives the same trace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)] = "synthetic"
    num_layers: PositiveInt
    num_experts: Annotated[int, Field(ge=1, le=MAX_EXPERTS)]
    top_k: PositiveInt
    requests: PositiveInt = 1
    prompt_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 256
    skew: Annotated[float, Field(ge=0, le=10)] = 0.0
    stickiness: Probability = 0.0
    affinity: Probability = 0.0
    drift: Probability = 0.0
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> SyntheticRouting:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        if self.tokens_per_request == 0:
            raise ValueError("prompt_tokens and output_tokens are both 0")
        return self

    @property
    def tokens_per_request(self) -> int:
        """Prompt and output."""
        return self.prompt_tokens + self.output_tokens


def synthesize(routing: SyntheticRouting) -> RoutingTrace:
    """A trace of ``requests`` equally long requests, of origin "synthetic".

    Every token takes, in each layer, first the experts that stickiness keeps, then those that affinity brings, then
    others by popularity without replacement (Gumbel top-k), until there are k. Gate weights are a softmax over the
    chosen experts' popularity and luck, so that sticky experts are no heavier than others; slots descend by weight.
    """
    requests, tokens = routing.requests, routing.tokens_per_request
    chances = _Chances(routing)
    shape = (requests, tokens, routing.num_layers, routing.top_k)
    experts, weights = np.empty(shape, np.int64), np.empty(shape, np.float16)
    before: Ints | None = None
    for token in range(tokens):
        chances.drift()
        for layer in range(routing.num_layers):
            sticky = None if before is None else before[:, layer]
            linked = None if layer == 0 else chances.successors(layer, experts[:, token, layer - 1])
            experts[:, token, layer], weights[:, token, layer] = chances.choose(layer, sticky, linked)
        before = experts[:, token]
    rows = requests * tokens
    position = np.tile(np.arange(tokens, dtype=np.int32), requests)
    return check(
        RoutingTrace(
            card=_card(routing),
            experts=experts.reshape(rows, *shape[2:]).astype(expert_dtype(routing.num_experts)),
            request=np.repeat(np.arange(requests, dtype=np.int32), tokens),
            position=position,
            phase=np.where(position < routing.prompt_tokens, PREFILL, DECODE).astype(np.uint8),
            weights=weights.reshape(rows, *shape[2:]),
        )
    )


def _card(routing: SyntheticRouting) -> TraceCard:
    return TraceCard(
        name=routing.name,
        model="synthetic",
        num_experts=routing.num_experts,
        top_k=routing.top_k,
        moe_layer_indices=list(range(routing.num_layers)),
        origin="synthetic",
        training={"generator": routing.model_dump()},
    )


class _Chances:
    """The dice: one random stream, and the popularity of every expert for every request.

    ``_popularity``: log of the share, [requests, layers, num_experts]; ``_successor``: [layers - 1, num_experts].
    """

    def __init__(self, routing: SyntheticRouting):
        self._routing = routing
        seed = np.random.SeedSequence([routing.seed, zlib.crc32(b"synthetic trace")])
        self._rng = np.random.default_rng(seed)
        self._log_share = -routing.skew * np.log(np.arange(1, routing.num_experts + 1))
        self._popularity = np.tile(self._order(1), (routing.requests, 1, 1))
        experts = np.tile(np.arange(routing.num_experts), (max(0, routing.num_layers - 1), 1))
        self._successor = self._rng.permuted(experts, axis=1)

    def _order(self, requests: int) -> Floats:
        shares = np.tile(self._log_share, (requests, self._routing.num_layers, 1))
        return self._rng.permuted(shares, axis=2)

    def drift(self) -> None:
        """Some requests change their topic."""
        changing = np.flatnonzero(self._rng.random(self._routing.requests) < self._routing.drift)
        self._popularity[changing] = self._order(len(changing))

    def successors(self, layer: int, chosen: Ints) -> Ints:
        """The experts of ``layer`` that follow those chosen in the layer before. [requests, top_k]"""
        return np.asarray(self._successor[layer - 1][chosen])

    def choose(self, layer: int, sticky: Ints | None, linked: Ints | None) -> tuple[Ints, Floats]:
        """Experts and gate weights of one token of every request. [requests, top_k] each"""
        luck = self._popularity[:, layer] - np.log(-np.log(self._rng.random(self._popularity[:, layer].shape)))
        score = luck.copy()
        self._lift(score, sticky, self._routing.stickiness, 2 * _ABOVE)
        self._lift(score, linked, self._routing.affinity, _ABOVE)
        chosen = np.argpartition(-score, self._routing.top_k - 1, axis=1)[:, : self._routing.top_k]
        gate = np.take_along_axis(luck, chosen, axis=1)
        order = np.argsort(-gate, axis=1, kind="stable")
        odds = np.exp(np.take_along_axis(gate, order, axis=1) - gate.max(axis=1, keepdims=True))
        return np.take_along_axis(chosen, order, axis=1), odds / odds.sum(axis=1, keepdims=True)

    def _lift(self, score: Floats, experts: Ints | None, probability: float, height: float) -> None:
        drawn = self._rng.random((len(score), self._routing.top_k)) < probability
        if experts is not None:
            request, slot = np.nonzero(drawn)
            score[request, experts[request, slot]] += height
