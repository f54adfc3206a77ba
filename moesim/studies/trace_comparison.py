"""Several traces side by side: the few figures that say whether one can stand for another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moesim.studies.replay import load_any_trace
from moesim.studies.trace_info import PhaseInfo, TraceInfo, describe

Row = tuple[str, tuple[float | None, ...]]


def described(traces: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Card and figures of each trace, one after the other, as ``results.trace_figures.saved_traces`` takes them."""
    for path in traces:
        trace = load_any_trace(path)
        info = describe(trace, curve_policies=("lru", "belady"))
        yield {"card": trace.card.model_dump(mode="json"), **info.to_dict()}


def side_by_side(traces: Sequence[TraceInfo], phase: str = "decode") -> list[Row]:
    """A row for each figure: what it is, and its value for each trace; None where the trace doesn't have it.

    Figures that depend on k and E are given as multiples of what uniform routing would give, so that traces of
    different shapes can be compared.
    """
    columns = [headline(trace, phase) for trace in traces]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, tuple(column.get(name) for column in columns)) for name in names]


def headline(trace: TraceInfo, phase: str = "decode") -> dict[str, float | None]:
    """The figures of one trace, by what they are; none where it has no tokens of that phase."""
    figures = trace.phases.get(phase)
    if figures is None:
        return {}
    lru_rate = trace.layer_lru.hit_rate_per_lookup if phase == "decode" else None
    return {
        "tokens": figures.tokens,
        "load CV": figures.load_cv.mean,
        "consecutive overlap, x k/E": _times(figures.consecutive_overlap.mean, figures.chance_overlap),
        "experts of 16 consecutive tokens, x uniform": _distinct(figures, 16),
        "next layer: information / entropy": figures.next_layer_information.mean,
        "next layer, first choices: information / entropy": figures.next_layer_first_choice_information.mean,
        "next layer: recall of a transition table": figures.successor_recall.mean,
        "next layer: recall of popularity alone": figures.popularity_recall.mean,
        **{f"lookahead {d}: recall": recall.mean for d, recall in figures.lookahead_recall.items()},
        "SRP, segments of 16": figures.segment_routing_performance.mean,
        "SCH, segments of 16, 2 k slots": figures.segment_cache_hit_rate.mean,
        "LRU of 2 k experts a layer, x uniform": _times(lru_rate, trace.layer_lru.uniform),
        "drift between halves, bits": figures.drift_bits.mean,
    }


def _distinct(figures: PhaseInfo, batch: int) -> float | None:
    row = next((row for row in figures.distinct if row.batch == batch), None)
    return None if row is None else _times(row.sequence, row.uniform)


def _times(value: float | None, chance: float) -> float | None:
    return None if value is None else value / chance
