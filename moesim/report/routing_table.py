"""The figures of routing traces as rows of a table: what each is, how it is told, and what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moesim.report import formats
from moesim.results.trace_figures import PerLayer, PhaseFigures, TraceFigures

Told = Callable[[TraceFigures, PhaseFigures], str]
#: The batch of which the table and the answer speak.
BATCH = 16


@dataclass(frozen=True)
class Figure:
    """A row: its name, what it means, its value, and what uniform routing, popularity or unrelated tokens give."""

    name: str
    meaning: str
    value: Told
    chance: Told | None = None


def main_phase(trace: TraceFigures) -> str:
    """Decode where there is any, else what there is."""
    return "decode" if "decode" in trace.phases else next(iter(trace.phases))


def table(traces: Sequence[TraceFigures]) -> list[tuple[Figure, list[tuple[str, str]]]]:
    """For each figure its value and chance in every column: phases of one trace, or the main phases of several."""
    if len(traces) == 1:
        columns = [(traces[0], figures) for figures in traces[0].phases.values()]
    else:
        columns = [(trace, trace.phases[main_phase(trace)]) for trace in traces]
    rows = [(figure, [_cell(figure, *column) for column in columns]) for figure in FIGURES]
    return [(figure, cells) for figure, cells in rows if any(value != formats.UNDEFINED for value, _ in cells)]


def _cell(figure: Figure, trace: TraceFigures, figures: PhaseFigures) -> tuple[str, str]:
    return figure.value(trace, figures), "" if figure.chance is None else figure.chance(trace, figures)


def _percent(name: str) -> Told:
    """A share, or its mean over layers."""
    return lambda _, figures: formats.percent(_mean(figures, name))


def _number(name: str) -> Told:
    """A number, or its mean over layers."""
    return lambda _, figures: formats.number(_mean(figures, name))


def _mean(figures: PhaseFigures, name: str) -> float | None:
    value: PerLayer | float | None = getattr(figures, name)
    return value.mean if isinstance(value, PerLayer) else value


def _distinct(_: TraceFigures, figures: PhaseFigures) -> str:
    row = next((row for row in figures.distinct if row.batch == BATCH), None)
    return formats.UNDEFINED if row is None else formats.number(row.sequence)


def _uniform_distinct(_: TraceFigures, figures: PhaseFigures) -> str:
    row = next((row for row in figures.distinct if row.batch == BATCH), None)
    return "" if row is None else formats.number(row.uniform)


def _lookahead(distance: int) -> Told:
    def value(_: TraceFigures, figures: PhaseFigures) -> str:
        recall = figures.lookahead_recall.get(distance)
        return formats.percent(None if recall is None else recall.mean)

    return value


def _cycle(_: TraceFigures, figures: PhaseFigures) -> str:
    experts = formats.number(figures.cycle_experts)
    return experts if figures.cycle_bytes is None else f"{experts} ({formats.size(figures.cycle_bytes)})"


def _experts(trace: TraceFigures, _: PhaseFigures) -> str:
    return formats.count(trace.experts)


def _tokens(_: TraceFigures, figures: PhaseFigures) -> str:
    return formats.count(figures.tokens)


FIGURES = (
    Figure("tokens", "that the figures rest on", _tokens),
    Figure(
        f"experts of {BATCH} consecutive tokens",
        "distinct ones of a layer; chance: E (1 − (1 − k/E)^B)",
        _distinct,
        _uniform_distinct,
    ),
    Figure(
        "overlap of consecutive tokens",
        "share of a token's experts that the one before had; chance: k/E",
        _percent("consecutive_overlap"),
        _percent("chance_overlap"),
    ),
    Figure(
        "load CV",
        "standard deviation of the experts' loads over their mean; chance: 0",
        _number("load_cv"),
    ),
    Figure(
        "effective experts",
        "as many equally used experts would have the load's entropy; chance: E",
        _number("effective_experts"),
        _experts,
    ),
    Figure(
        "next layer: information",
        "that a layer's experts give of the next one's, over the entropy; chance: of tokens half a trace apart",
        _percent("next_layer_information"),
        _percent("chance_next_layer_information"),
    ),
    Figure(
        "next layer: transition table",
        "learned on the first half, judged on the second: recall of its k best; chance: the k most popular",
        _percent("successor_recall"),
        _percent("popularity_recall"),
    ),
    *(
        Figure(
            f"lookahead {distance}",
            f"recall when the router {distance} layer{'s' * (distance > 1)} on is asked early",
            _lookahead(distance),
        )
        for distance in (1, 2, 3)
    ),
    Figure(
        "SRP, segments of 16",
        "segment routing best performance: best F1 of a router that decides once for a segment",
        _percent("segment_routing_performance"),
    ),
    Figure(
        "SCH, segments of 16",
        "segment cache hit rate: a cache of 2 k experts a layer that sees the next 16 tokens, a bound",
        _percent("segment_cache_hit_rate"),
    ),
    Figure(
        "one token's cycle",
        "experts of its pass through all layers: at batch 1 a smaller global LRU hits next to nothing",
        _cycle,
    ),
    Figure(
        "drift, bits",
        "Jensen-Shannon divergence of the loads of the trace's halves; chance: of every second token",
        _number("drift_bits"),
        _number("chance_drift_bits"),
    ),
)
