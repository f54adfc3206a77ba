"""Steps turned into visits: the activations and lookups that both engines replay, as flat arrays.

A visit is one MoE layer of one step, so visit v is layer ``v % layers`` of step ``v // layers``. Its activations are
the (token, expert) uses in recorded order; its lookups are the distinct experts among them, in the order in which
they are asked for: by first use when decoding, by last use in prefill (where an expert's tokens come together).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moesim.traces.steps import Steps
from moesim.traces.trace import PREFILL, RoutingTrace

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Visits:
    """All visits of a workload. Keys count (layer, expert) pairs: ``key = layer * num_experts + expert``.

    Attributes:
        steps: the steps that the visits belong to.
        num_layers, num_experts: MoE layers, and experts per layer.
        activation_start: the activations of visit v are ``[activation_start[v], activation_start[v + 1])``.
        activation_key: [activations]
        activation_row: the trace row (token) of each. [activations]
        activation_weight: gate weight; equal shares where the trace has none. [activations]
        activation_lookup: which lookup it belongs to. [activations]
        lookup_start: as ``activation_start``. [visits + 1]
        lookup_key: [lookups]
        lookup_tokens: how many tokens of the step use the expert. [lookups]
        request_of_row: the request of each of the trace's rows. [rows]
        keep_until: what a schedule says of each activation, where one is replayed (``setup.schedule``). [activations]
    """

    steps: Steps
    num_layers: int
    num_experts: int
    activation_start: Ints
    activation_key: Ints
    activation_row: Ints
    activation_weight: NDArray[np.float64]
    activation_lookup: Ints
    lookup_start: Ints
    lookup_key: Ints
    lookup_tokens: Ints
    request_of_row: NDArray[np.int32]
    keep_until: Ints | None = None

    @property
    def num_visits(self) -> int:
        """Layers times steps."""
        return len(self.lookup_start) - 1

    @property
    def num_keys(self) -> int:
        """(layer, expert) pairs of the language model."""
        return self.num_layers * self.num_experts

    @cached_property
    def routing_sha256(self) -> str:
        """Hex digest of all activations, of which steps are prefill, and of where requests start; no weights."""
        digest = hashlib.sha256(f"{self.num_layers} {self.num_experts}".encode())
        for array in (self.activation_start, self.activation_key, self.steps.phase, self.starts_request):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @cached_property
    def starts_request(self) -> NDArray[np.bool_]:
        """Whether a step holds the first token that a request runs. [steps]"""
        _, first = np.unique(self.request_of_row[self.steps.row], return_index=True)
        starts = np.zeros(self.steps.num_steps, dtype=bool)
        starts[np.searchsorted(self.steps.row_start, first, side="right") - 1] = True
        return starts

    @cached_property
    def gates(self) -> Gates:
        """Which share of their tokens' gate weights the lookups have."""
        return _gates(self)

    @cached_property
    def next_use(self) -> Ints:
        """For each activation the number of the next activation of the same key; past the end if none."""
        return next_use(self.activation_key)

    @property
    def scheduled(self) -> Ints:
        """For each activation the one until which a schedule keeps its expert; without a schedule its next use."""
        return self.next_use if self.keep_until is None else self.keep_until


@dataclass(frozen=True)
class Gates:
    """Shares of gate weight: a token's weights in a layer sum to 1, whether or not the trace normalises them.

    Attributes:
        total: the sum of a lookup's shares over its tokens. [lookups]
        largest: the largest of them. [lookups]
        before: the least sum of shares that one of its tokens ranks before it; 0 where it is a first choice. [lookups]
    """

    total: NDArray[np.float64]
    largest: NDArray[np.float64]
    before: NDArray[np.float64]


def _gates(visits: Visits) -> Gates:
    count, lookups = len(visits.activation_key), len(visits.lookup_key)
    visit = np.repeat(np.arange(visits.num_visits), np.diff(visits.activation_start))
    is_new = np.ones(count, dtype=bool)
    is_new[1:] = (np.diff(visit) != 0) | (np.diff(visits.activation_row) != 0)
    token = np.cumsum(is_new) - 1
    weight = visits.activation_weight
    whole = np.bincount(token, weights=weight)[token] if count else weight
    share = np.where(whole > 0, weight / np.where(whole > 0, whole, 1), 1 / np.bincount(token)[token] if count else 0)
    order = np.lexsort((-share, token))
    ranked = np.cumsum(share[order]) - share[order]
    first = ranked[np.searchsorted(token[order], token[order])]
    before = np.empty(count)
    before[order] = np.maximum(ranked - first, 0.0)
    largest, least = np.zeros(lookups), np.full(lookups, np.inf)
    np.maximum.at(largest, visits.activation_lookup, share)
    np.minimum.at(least, visits.activation_lookup, before)
    total = np.bincount(visits.activation_lookup, weights=share, minlength=lookups).astype(np.float64)
    return Gates(total, largest, least)


def next_use(keys: Ints) -> Ints:
    """For each access the index of the next access to the same key, ``len(keys)`` where there is none."""
    order = np.argsort(keys, kind="stable")
    same = keys[order[:-1]] == keys[order[1:]]
    following = np.full(len(keys), len(keys), dtype=np.int64)
    following[order[:-1][same]] = order[1:][same]
    return following


def visits_of(trace: RoutingTrace, steps: Steps) -> Visits:
    """The visits of ``steps`` over ``trace``, vectorised: three stable sorts over all activations."""
    layers, top_k, experts = trace.num_layers, trace.top_k, trace.num_experts
    step_of_row = np.repeat(np.arange(steps.num_steps), steps.tokens)
    order = _step_layer_token_order(step_of_row, layers)
    routed = np.asarray(trace.experts)[steps.row].reshape(-1, top_k)[order]
    visit = np.repeat((step_of_row[:, None] * layers + np.arange(layers)).reshape(-1)[order], top_k)
    row = np.repeat(np.repeat(steps.row, layers)[order], top_k)
    used = routed.reshape(-1) != trace.sentinel
    visit, row = visit[used], row[used]
    key = (visit % layers) * experts + routed.reshape(-1)[used].astype(np.int64)
    weight = _weights(trace, steps, order, used)
    num_visits = steps.num_steps * layers
    lookup = _lookups(visit, key, experts * layers, np.repeat(steps.phase == PREFILL, layers))
    return Visits(
        steps=steps,
        num_layers=layers,
        num_experts=experts,
        activation_start=np.searchsorted(visit, np.arange(num_visits + 1)),
        activation_key=key,
        activation_row=row,
        activation_weight=weight,
        activation_lookup=lookup.of_activation,
        lookup_start=np.searchsorted(lookup.visit, np.arange(num_visits + 1)),
        lookup_key=lookup.key,
        lookup_tokens=lookup.tokens,
        request_of_row=np.asarray(trace.request),
    )


def _step_layer_token_order(step_of_row: Ints, layers: int) -> Ints:
    """Turns (token, layer) pairs in token order into (step, layer, token) order."""
    pair_step = np.repeat(step_of_row, layers)
    pair_layer = np.tile(np.arange(layers), len(step_of_row))
    return np.argsort(pair_step * layers + pair_layer, kind="stable")


def _weights(trace: RoutingTrace, steps: Steps, order: Ints, used: NDArray[np.bool_]) -> NDArray[np.float64]:
    if trace.weights is None:
        return np.full(int(used.sum()), 1.0 / trace.top_k)
    return np.asarray(trace.weights)[steps.row].reshape(-1, trace.top_k)[order].reshape(-1)[used].astype(np.float64)


@dataclass(frozen=True)
class _Lookups:
    visit: Ints
    key: Ints
    tokens: Ints
    of_activation: Ints


def _lookups(visit: Ints, key: Ints, num_keys: int, is_prefill: NDArray[np.bool_]) -> _Lookups:
    """Distinct keys of each visit, ordered by first use, or by last use where the visit is prefill."""
    count = len(key)
    pair, first, group, tokens = np.unique(
        visit * num_keys + key, return_index=True, return_inverse=True, return_counts=True
    )
    last = np.empty_like(first)
    last[group] = np.arange(count)
    pair_visit = pair // num_keys
    asked = np.where(is_prefill[pair_visit], last, first)
    order = np.lexsort((asked, pair_visit))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return _Lookups(pair_visit[order], (pair % num_keys)[order], tokens[order], rank[group])
