"""The tables of a replica's step, filled by the cost forms, and how far straight lines between them are from the forms.

What depends on a count alone has an entry for every count. Attention has a grid of request numbers and mean contexts
(requests of one step count as equally long), routed experts one of pairs and distinct experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.costs.charges import resource_of
from moesim.costs.resident import Part, Resident
from moesim.hardware import Kind
from moesim.setup.serving import StepCosts

Floats = NDArray[np.float64]
Name = TypeVar("Name")
#: Each point of a grid is so many times the one before.
_CONTEXT_RATIO, _QUERY_RATIO, _LOAD_RATIO = 1.2, 1.15, 1.02
#: Attention of prompts works in blocks of so many queries; the first stairs of its time have points at both edges.
_BLOCK, _STAIRS = 128, 16
#: Loads up to this many pairs have a point each.
_EXACT_LOADS = 1024


@dataclass(frozen=True)
class Tables:
    """Tables, and what each of their entries is made of.

    Attributes:
        parts: table -> name of a part -> its seconds, in the table's shape.
        kinds: table -> name of a part and kind of its evidence -> seconds, in the table's shape.
        resources: table -> what limits it -> seconds, in the table's shape.
        reasons: what was extrapolated, in words.
    """

    costs: StepCosts
    parts: dict[str, dict[str, Floats]]
    kinds: dict[str, dict[tuple[str, Kind], Floats]]
    resources: dict[str, dict[str, Floats]]
    reasons: tuple[str, ...]


def tables_of(
    price: Resident, exchange: str | None, tokens: int, requests: int, longest: int, layers: NDArray[np.float64]
) -> Tables:
    """Fill the tables.

    Args:
        exchange: mode of expert-parallel dispatch; None: all-reduces.
        tokens, requests: most of a step; longest: most positions of a request.
        layers: how many layers each routed layer stands for. [routed layers]
    """
    filler = Filler(price, tokens, requests, longest)
    found: dict[str, tuple[tuple[int, ...], list[Part]]] = {
        "dense": filler.dense(exchange),
        "head": filler.head(),
        "host": filler.host(),
        "decode": filler.decode(),
        "prefill": filler.prefill(),
        "expert": filler.experts(),
    }
    seconds = {name: _sum(shape, [part.seconds for part in parts]) for name, (shape, parts) in found.items()}
    for name in ("dense", "head", "host"):
        seconds[name][0] = 0.0
    spec, ep = price.spec, price.parallel.ep
    costs = StepCosts(
        dense_s=seconds["dense"],
        head_s=seconds["head"],
        host_s=seconds["host"],
        context=filler.context,
        decode_s=seconds["decode"],
        query=filler.query,
        span=filler.span,
        prefill_s=seconds["prefill"],
        load=filler.load,
        expert_s=seconds["expert"],
        token_s=np.array([filler.token_s()]),
        top_k=np.array([max(spec.top_k, 1)]),
        share=np.array([ep / max(spec.top_k, 1)]),
        layers=layers,
    )
    return Tables(
        costs,
        {name: _by(shape, [(part.name, part.seconds) for part in parts]) for name, (shape, parts) in found.items()},
        {
            name: _by(shape, [((p.name, kind), seconds) for p in parts for kind, seconds in p.by_kind().items()])
            for name, (shape, parts) in found.items()
        },
        {
            name: _by(shape, [(resource_of(term), seconds) for part in parts for term, seconds in part.terms.items()])
            for name, (shape, parts) in found.items()
        },
        tuple(dict.fromkeys(reason for _, parts in found.values() for part in parts for reason in part.reasons)),
    )


def scaled(costs: StepCosts, factor: float) -> StepCosts:
    """Every step so many times as long."""
    if factor == 1:
        return costs
    tables = ("dense_s", "head_s", "host_s", "decode_s", "prefill_s", "expert_s", "token_s")
    return replace(costs, **{name: getattr(costs, name) * factor for name in tables})


def _sum(shape: tuple[int, ...], seconds: Sequence[Floats]) -> Floats:
    return np.array(sum((np.broadcast_to(value, shape) for value in seconds), start=np.zeros(shape)))


def _by(shape: tuple[int, ...], items: Sequence[tuple[Name, Floats]]) -> dict[Name, Floats]:
    names = dict.fromkeys(name for name, _ in items)
    return {name: _sum(shape, [value for other, value in items if other == name]) for name in names}


class Filler:
    """Axes, and each table's parts on them. A replica's requests and tokens are spread evenly over its dp copies."""

    def __init__(self, price: Resident, tokens: int, requests: int, longest: int):
        self._price, self._copies = price, price.parallel.dp
        self.tokens, self.requests = tokens, requests
        self._tokens, self._requests = np.arange(tokens + 1), np.arange(requests + 1)
        self.context = _grid(1, max(longest, 2), _CONTEXT_RATIO)
        stairs = np.arange(_BLOCK, min(tokens, _STAIRS * _BLOCK), _BLOCK) * self._copies
        self.query = np.unique(np.concatenate([_grid(1, max(tokens, 2), _QUERY_RATIO), stairs, stairs + 1]))
        self.span = _grid(1, max(longest, 2), _CONTEXT_RATIO)
        most = tokens * max(price.spec.top_k, 1)
        self.load = np.concatenate(
            [np.arange(min(most, _EXACT_LOADS)), _grid(min(most, _EXACT_LOADS), most + 1, _LOAD_RATIO)]
        )

    def dense(self, exchange: str | None) -> tuple[tuple[int, ...], list[Part]]:
        """What the number of tokens decides: priced once for each number of a copy's tokens."""
        price, count = self._price, np.arange(-(-self._tokens[-1] // self._copies) + 1)
        own = exchange is None or price.parallel.ep == 1
        parts = [*price.dense(count), *price.all_reduces(count, experts_too=own), *price.stages(count)]
        if not own and exchange is not None:
            parts += price.exchange(np.ceil(count / price.parallel.tp), exchange)
        own_tokens = -(-self._tokens // self._copies)
        return self._tokens.shape, [_at(part, own_tokens) for part in parts]

    def head(self) -> tuple[tuple[int, ...], list[Part]]:
        """Output head and sampling."""
        return self._requests.shape, self._price.head(np.ceil(self._requests / self._copies))

    def host(self) -> tuple[tuple[int, ...], list[Part]]:
        """The host."""
        return self._requests.shape, [self._price.host(self._requests)]

    def decode(self) -> tuple[tuple[int, ...], list[Part]]:
        """Attention of decoding requests. [requests, contexts]"""
        each = np.ceil(self._requests / self._copies)[:, None]
        contexts = self._price.even_contexts(decoding=each, decode_context=each * self.context)
        return (len(self._requests), len(self.context)), self._price.attention(contexts)

    def prefill(self) -> tuple[tuple[int, ...], list[Part]]:
        """Attention of prompt tokens: of one request with a past, or of several without. [queries, spans]"""
        tokens, span = np.broadcast_arrays((self.query / self._copies)[:, None], self.span)
        past = span - (tokens + 1) / 2
        one = self._price.contexts(prefill=tokens[..., None], past=np.maximum(past, 0)[..., None])
        several = self._price.even_contexts(prefilling=tokens / np.maximum(2 * span - 1, 1), prefill_tokens=tokens)
        seconds = [self._price.attention(contexts) for contexts in (one, several)]
        parts = [_either(past >= 0, alone, shared) for alone, shared in zip(*seconds, strict=True)]
        return tokens.shape, parts

    def experts(self) -> tuple[tuple[int, ...], list[Part]]:
        """Routed experts of one layer on one rank. [loads, distinct]"""
        spec, ep = self._price.spec, self._price.parallel.ep
        if not spec.num_moe_layers:
            return (2, 2), []
        pairs = self.load[:, None]
        distinct = np.arange(spec.num_experts // ep + 1)
        part = self._price.moe_layer(pairs * (ep / spec.top_k), pairs, distinct)
        return (len(self.load), len(distinct)), [part]

    def token_s(self) -> float:
        """What a token of another rank costs this one: its row of the output buffer."""
        price, ep = self._price, self._price.parallel.ep
        if ep == 1 or not price.spec.num_moe_layers:
            return 0.0
        few, many = price.moe_layer(np.array([4096.0, 8192.0]), 64.0, 8.0).seconds
        return float(many - few) / 4096


def _at(part: Part, places: NDArray[np.int64]) -> Part:
    """A part's entries at some places."""
    shape = part.seconds.shape
    terms = {name: np.broadcast_to(term, shape)[places] for name, term in part.terms.items()}
    return replace(part, terms=terms, extrapolated=np.broadcast_to(part.extrapolated, shape)[places])


def _either(mask: NDArray[np.bool_], first: Part, second: Part) -> Part:
    """One part where ``mask`` is set, else the other."""
    terms = {
        name: np.where(mask, first.terms[name], second.terms[name]) for name in first.terms if name in second.terms
    }
    return replace(first, terms=terms, extrapolated=np.where(mask, first.extrapolated, second.extrapolated))


def _grid(first: float, last: float, ratio: float) -> Floats:
    """From ``first`` to ``last`` (at least two points), in whole numbers, each about ``ratio`` times the one before."""
    count = max(int(np.ceil(np.log(last / first) / np.log(ratio))), 1)
    points = np.unique(np.rint(first * (last / first) ** (np.arange(count + 1) / count)))
    return points.astype(np.float64)
