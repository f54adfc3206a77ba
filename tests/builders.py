"""Small traces and setups, worked out by hand, that several tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.costs.node_times import Times
from moesim.costs.roofline import OpTime
from moesim.policies import api
from moesim.setup import FULL, LOW, Form, Pieces, Setup, TierSetup
from moesim.traces import RoutingTrace
from moesim.traces.card import TraceCard
from moesim.traces.steps import closed_loop
from moesim.traces.trace import DECODE, PREFILL, expert_dtype
from moesim.traces.visits import Visits, visits_of

MIB = 2**20


def trace_of(
    experts: Any,
    *,
    num_experts: int,
    prompt: int = 0,
    requests: Sequence[int] | None = None,
    lookahead: dict[int, Any] | None = None,
    weights: Any = None,
) -> RoutingTrace:
    """A trace from [tokens, layers, top_k]; -1 is no expert. The first ``prompt`` tokens of a request are prefill."""
    ids = np.asarray(experts)
    dtype = expert_dtype(num_experts)
    sentinel = np.iinfo(dtype).max
    request = np.zeros(len(ids), np.int32) if requests is None else np.asarray(requests, np.int32)
    first = np.searchsorted(request, request)
    position = (np.arange(len(ids)) - first).astype(np.int32)
    card = TraceCard(
        name="by hand",
        model="by hand",
        num_experts=num_experts,
        top_k=ids.shape[2],
        moe_layer_indices=list(range(ids.shape[1])),
        origin="synthetic",
    )

    def coded(values: Any) -> Any:
        values = np.asarray(values)
        return np.where(values < 0, sentinel, values).astype(dtype)

    return RoutingTrace(
        card=card,
        experts=coded(ids),
        request=request,
        position=position,
        phase=np.where(position < prompt, PREFILL, DECODE).astype(np.uint8),
        weights=None if weights is None else np.asarray(weights, np.float16),
        lookahead={distance: coded(channel) for distance, channel in (lookahead or {}).items()},
    )


def visits_for(trace: RoutingTrace, **workload: Any) -> Visits:
    """All requests of a trace, one after the other unless ``batch`` says otherwise."""
    return visits_of(trace, closed_loop(trace, trace.request_ids.tolist(), **workload))


def op(seconds: Any) -> OpTime:
    """An operation bound by arithmetic."""
    values = np.asarray(seconds, dtype=np.float64)
    return OpTime(values, np.zeros_like(values), np.zeros_like(values))


def setup_of(
    trace: RoutingTrace,
    *,
    slots: int,
    host_slots: int | None = None,
    caching: str = "lru",
    prefetch: tuple[str, dict[str, Any]] = ("none", {}),
    on_miss: tuple[str, dict[str, Any]] = ("fetch", {}),
    before_s: float = 1.0,
    expert_s: float = 1.0,
    copy_s: float = 4.0,
    read_s: float = 8.0,
    cpu_s: float = 3.0,
    after_s: float = 0.0,
    shared_s: float = 0.0,
    size: int = MIB,
    **options: Any,
) -> Setup:
    """A node on which everything takes a round number of seconds; capacities in experts of ``size`` bytes."""
    visits = options.pop("visits", None) or visits_for(trace, **options.pop("workload", {}))
    policy = api.load("prefetch", *prefetch)
    keys = visits.num_keys
    times = Times(
        before=op(np.full(visits.num_visits, before_s)),
        shared=op(np.full(visits.num_visits, shared_s)),
        expert=op(np.full(len(visits.lookup_key), expert_s)),
        after=op(np.full(visits.steps.num_steps, after_s)),
        copy_s=np.full(keys, copy_s),
        read_s=np.full(keys, read_s),
        cpu_s=np.full(len(visits.lookup_key), cpu_s),
    )
    uses = options.pop("training_uses", None)
    miss, forms = api.load("on_miss", *on_miss), {}
    whole, half = np.full(keys, size, dtype=np.int64), np.full(keys, size // 2, dtype=np.int64)
    if api.STREAM in miss.actions:
        tier = TierSetup(api.load("caching", "none"), miss.params.slots * size)
        forms["streamed"] = Form(tier, whole, times.copy_s, times.read_s, times.expert)
    if api.LOW in miss.actions:
        tier, quick = TierSetup(api.load("caching", "lru"), options.pop("low_slots", 2) * (size // 2)), expert_s / 2
        low_expert = op(np.full(len(visits.lookup_key), quick))
        forms["low"] = Form(tier, half, times.copy_s / 2, times.read_s / 2, low_expert)
    pieces = options.pop("pieces", 1)
    if pieces > 1:
        cut = Pieces(np.full(keys, pieces), times.copy_s / pieces, times.read_s / pieces)
        options["pieces"] = {FULL: cut, LOW: replace(cut, copy_s=cut.copy_s / 2, read_s=cut.read_s / 2)}
    host_policy = api.load("caching", options.pop("host_caching", "lru"))
    return Setup(
        visits=visits,
        times=times,
        sizes=np.full(keys, size, dtype=np.int64),
        gpu=TierSetup(api.load("caching", caching), slots * size, options.pop("per_layer", False), uses),
        host=None if host_slots is None else TierSetup(host_policy, host_slots * size, training_uses=uses),
        unified=options.pop("unified", False),
        rule=options.pop("rule", "reserve"),
        link=options.pop("link", "demand-first"),
        candidates=policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0)),
        on_miss=miss,
        **forms,
        **options,
    )
