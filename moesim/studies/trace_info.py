"""What a researcher asks first about a routing trace: how much do its tokens share, and with what?

:func:`describe` gathers the figures of :mod:`moesim.traces.statistics` (which define them) phase by phase, beside what
uniform routing would give, and the curves of :mod:`moesim.studies.hit_curves`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.studies.hit_curves import HitCurve, LayerLru, hit_curves, layer_lru
from moesim.traces import RoutingTrace
from moesim.traces import statistics as stats

BATCHES = (1, 2, 4, 8, 16, 32, 64)
REUSE_LIMITS = (1, 2, 4, 8, 16, 32, 64, 128)
#: Segment of SRP and SCH, and the size of SCH's cache in units of top_k, which the paper recommends as a rule of thumb.
SEGMENT, SLOTS_PER_TOP_K = 16, 2
#: Figures of larger traces rest on their first requests with at most so many tokens.
MAX_TOKENS = 100_000
_PAIRS_SHOWN, _PAIR_MIN_TOKENS = 10, 10
_PHASE_FIGURES: Sequence[stats.Phase] = ("prefill", "decode", "all")


@dataclass(frozen=True)
class PerLayer:
    """A figure of every layer, and its mean over those where it is defined; None elsewhere."""

    mean: float | None
    layers: tuple[float | None, ...]


@dataclass(frozen=True)
class Distinct:
    """Distinct experts of a layer that ``batch`` tokens touch, means over layers.

    ``sequence``: consecutive tokens of one request; ``requests``: tokens of that many requests; ``uniform``:
    E (1 - (1 - k/E)^B); ``bound``: min(E, B k). None where the trace has too few tokens or requests.
    """

    batch: int
    sequence: float | None
    requests: float | None
    uniform: float
    bound: int


@dataclass(frozen=True)
class Pair:
    """Two experts of a layer that serve the same tokens ``lift`` times as often as independent ones would."""

    layer: int
    experts: tuple[int, int]
    tokens: int
    lift: float


@dataclass(frozen=True)
class Part:
    """One domain, or the requests in the mean: how concentrated it is, and how far from the other tokens (bits)."""

    name: str
    tokens: float
    effective_experts: float | None
    divergence_from_rest: float | None


@dataclass(frozen=True)
class PhaseInfo:
    """The figures of one phase. Units and definitions: :mod:`moesim.traces.statistics`.

    ``chance_*`` is what uniform routing, popularity alone or unrelated tokens give for the figure before it.
    ``drift_bits``: divergence of the load of the first half of the tokens from the second; ``chance_drift_bits``: of
    every second token from the others.
    """

    tokens: int
    runs: int
    distinct: tuple[Distinct, ...]
    load_cv: PerLayer
    effective_experts: PerLayer
    consecutive_overlap: PerLayer
    chance_overlap: float
    next_layer_information: PerLayer
    chance_next_layer_information: PerLayer
    next_layer_first_choice_information: PerLayer
    chance_next_layer_first_choice_information: PerLayer
    successor_recall: PerLayer
    popularity_recall: PerLayer
    lookahead_recall: Mapping[int, PerLayer]
    reuse_within_tokens: Mapping[int, float | None]
    cycle_experts: float | None
    cycle_bytes: float | None
    segment_routing_performance: PerLayer
    segment_cache_hit_rate: PerLayer
    drift_bits: PerLayer
    chance_drift_bits: PerLayer
    strongest_pairs: tuple[Pair, ...]
    domains: tuple[Part, ...]
    mean_request: Part | None


@dataclass(frozen=True)
class TraceInfo:
    """All that ``moesim trace info`` says.

    ``phases`` has "prefill" and "decode", where there are such tokens, and "all" where there are both.
    ``hit_curves`` is empty unless asked for. ``tokens_used``: the figures rest on the first so many tokens.
    """

    name: str
    model: str
    sha256: str
    origin: str
    labels: tuple[str, ...]
    transforms: tuple[str, ...]
    licence: str
    requests: int
    tokens: int
    tokens_used: int
    layers: int
    experts: int
    top_k: int
    recorded_share: float
    phases: Mapping[str, PhaseInfo]
    layer_lru: LayerLru
    hit_curves: tuple[HitCurve, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, numbers and text, ready for JSON."""
        plain = _plain(self)
        assert isinstance(plain, dict)
        return plain


def describe(trace: RoutingTrace, max_tokens: int | None = MAX_TOKENS, curve_policies: Sequence[str] = ()) -> TraceInfo:
    """Every figure of a trace; of its first requests only, where it has more than ``max_tokens`` tokens.

    Args:
        trace: the trace.
        max_tokens: see above; None: all tokens, however long it takes.
        curve_policies: caching policies whose hit curves to add, as ``("lru", "belady")``.

    Raises:
        PolicyError: an unknown policy, or one that needs parameters or a training split.
    """
    card = trace.card
    every = stats.token_rows(trace, "all", max_tokens)
    phases = {phase: stats.token_rows(trace, phase, max_tokens) for phase in _PHASE_FIGURES}
    if any(rows.num_tokens == every.num_tokens for phase, rows in phases.items() if phase != "all"):
        del phases["all"]
    return TraceInfo(
        name=card.name,
        model=card.model,
        sha256=trace.sha256,
        origin=card.origin,
        labels=card.labels,
        transforms=tuple(card.transforms),
        licence=card.licence,
        requests=len(trace.request_ids),
        tokens=trace.num_tokens,
        tokens_used=every.num_tokens,
        layers=trace.num_layers,
        experts=trace.num_experts,
        top_k=trace.top_k,
        recorded_share=float(every.recorded.mean()),
        phases={phase: _phase(trace, rows) for phase, rows in phases.items() if rows.num_tokens},
        layer_lru=layer_lru(trace),
        hit_curves=hit_curves(trace, curve_policies),
    )


def _phase(trace: RoutingTrace, rows: stats.TokenRows) -> PhaseInfo:
    counts = stats.load(rows)
    information, chance_information = stats.next_layer_information(rows)
    first_choice, chance_first_choice = stats.next_layer_information(rows, first_choice_only=True)
    successors, popularity = stats.successor_recall(rows)
    reuse = stats.reuse_shares(stats.reuse_gaps(rows), REUSE_LIMITS)
    sizes = trace.card.expert_bytes
    index = np.arange(rows.num_tokens)
    return PhaseInfo(
        tokens=rows.num_tokens,
        runs=len(rows.run_starts) - 1,
        distinct=tuple(_distinct(rows, batch) for batch in BATCHES),
        load_cv=_per_layer(stats.load_cv(counts)),
        effective_experts=_per_layer(stats.effective_experts(counts)),
        consecutive_overlap=_per_layer(stats.consecutive_overlap(rows)),
        chance_overlap=rows.top_k / rows.num_experts,
        next_layer_information=_per_layer(information),
        chance_next_layer_information=_per_layer(chance_information),
        next_layer_first_choice_information=_per_layer(first_choice),
        chance_next_layer_first_choice_information=_per_layer(chance_first_choice),
        successor_recall=_per_layer(successors),
        popularity_recall=_per_layer(popularity),
        lookahead_recall={d: _per_layer(stats.lookahead_recall(rows, ids, d)) for d, ids in trace.lookahead.items()},
        reuse_within_tokens={limit: _known(share) for limit, share in zip(REUSE_LIMITS, reuse, strict=True)},
        cycle_experts=_known(stats.cycle_experts(rows)),
        cycle_bytes=None if sizes is None else _known(stats.cycle_bytes(rows, sizes)),
        segment_routing_performance=_per_layer(stats.segment_routing_performance(rows, SEGMENT)),
        segment_cache_hit_rate=_per_layer(stats.segment_cache_hit_rate(rows, SEGMENT, SLOTS_PER_TOP_K * rows.top_k)),
        drift_bits=_per_layer(_divergence(rows, index < rows.num_tokens // 2)),
        chance_drift_bits=_per_layer(_divergence(rows, index % 2 == 0)),
        strongest_pairs=_strongest_pairs(rows),
        domains=_domains(trace, rows),
        mean_request=_mean_request(trace, rows),
    )


def _distinct(rows: stats.TokenRows, batch: int) -> Distinct:
    return Distinct(
        batch,
        _mean(stats.distinct_experts(rows, batch, "sequence")),
        _mean(stats.distinct_experts(rows, batch, "requests")),
        stats.distinct_if_uniform(rows.num_experts, rows.top_k, batch),
        stats.distinct_bound(rows.num_experts, rows.top_k, batch),
    )


def _divergence(rows: stats.TokenRows, part: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of the load of some tokens from the load of the others. ``part``: [tokens] -> [layers]"""
    return stats.divergence(stats.load(rows.subset(part)), stats.load(rows.subset(~part)))


def _part(rows: stats.TokenRows, name: str, members: NDArray[np.bool_]) -> Part:
    effective = stats.effective_experts(stats.load(rows.subset(members)))
    return Part(name, float(members.sum()), _mean(effective), _mean(_divergence(rows, members)))


def _domains(trace: RoutingTrace, rows: stats.TokenRows) -> tuple[Part, ...]:
    if trace.domain is None:
        return ()
    domain = np.asarray(trace.domain[rows.row])
    known = [(index, entry.name) for index, entry in enumerate(trace.card.domains) if (domain == index).any()]
    return tuple(_part(rows, name, domain == index) for index, name in known)


def _mean_request(trace: RoutingTrace, rows: stats.TokenRows) -> Part | None:
    request = np.asarray(trace.request[rows.row])
    parts = [_part(rows, "", request == one) for one in np.unique(request)]
    if len(parts) < 2:
        return None
    columns = zip(*((p.tokens, p.effective_experts, p.divergence_from_rest) for p in parts), strict=True)
    tokens, effective, divergence = (_mean(np.array(column, np.float64)) for column in columns)
    return Part("mean request", tokens or 0.0, effective, divergence)


def _strongest_pairs(rows: stats.TokenRows) -> tuple[Pair, ...]:
    """The pairs with the highest lift among those that share at least a handful of tokens."""
    found: list[Pair] = []
    for layer in range(rows.num_layers):
        together = np.triu(stats.pair_counts(rows, layer, layer), 1)
        lift = np.where(together >= _PAIR_MIN_TOKENS, stats.pair_lift(rows, layer), 0.0)
        for cell in np.argsort(-lift, axis=None, kind="stable")[:_PAIRS_SHOWN]:
            a, b = divmod(int(cell), rows.num_experts)
            if lift[a, b] > 0:
                found.append(Pair(layer, (a, b), int(together[a, b]), float(lift[a, b])))
    return tuple(sorted(found, key=lambda pair: -pair.lift)[:_PAIRS_SHOWN])


def _per_layer(values: NDArray[np.float64]) -> PerLayer:
    return PerLayer(_mean(values), tuple(_known(value) for value in values))


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
