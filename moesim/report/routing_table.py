"""The figures of routing traces as rows of a table: what each is, how it is told, and what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moesim.report import formats
from moesim.results.trace_figures import PhaseFigures, TraceFigures

BATCH = 16


@dataclass(frozen=True)
class Figure:
    """A row: its name, what it means, its value, and what uniform routing, popularity or unrelated tokens give."""

    name: str
    meaning: str
    value: Callable[[TraceFigures, PhaseFigures], str]
    chance: Callable[[TraceFigures, PhaseFigures], str] = lambda _trace, _figures: ""


def main_phase(trace: TraceFigures) -> str:
    """Decode where there is any, else what there is."""
    return "decode" if "decode" in trace.phases else next(iter(trace.phases))


def table(traces: Sequence[TraceFigures]) -> list[tuple[Figure, list[tuple[str, str]]]]:
    """For each figure its value and chance in every column: phases of one trace, or the main phases of several."""
    if len(traces) == 1:
        columns = [(traces[0], figures) for figures in traces[0].phases.values()]
    else:
        columns = [(trace, trace.phases[main_phase(trace)]) for trace in traces]
    rows = [(figure, [(figure.value(*column), figure.chance(*column)) for column in columns]) for figure in FIGURES]
    return [(figure, cells) for figure, cells in rows if any(value != formats.UNDEFINED for value, _ in cells)]


def _distinct(_: TraceFigures, figures: PhaseFigures) -> str:
    row = next((row for row in figures.distinct if row.batch == BATCH), None)
    return formats.UNDEFINED if row is None else formats.number(row.sequence)


def _uniform_distinct(_: TraceFigures, figures: PhaseFigures) -> str:
    row = next((row for row in figures.distinct if row.batch == BATCH), None)
    return "" if row is None else formats.number(row.uniform)


def _lookahead(distance: int) -> Callable[[TraceFigures, PhaseFigures], str]:
    def value(_: TraceFigures, figures: PhaseFigures) -> str:
        recall = figures.lookahead_recall.get(distance)
        return formats.percent(None if recall is None else recall.mean)

    return value


def _cycle(_: TraceFigures, figures: PhaseFigures) -> str:
    experts = formats.number(figures.cycle_experts)
    return experts if figures.cycle_bytes is None else f"{experts} ({formats.size(figures.cycle_bytes)})"


FIGURES = (
    Figure("tokens", "that the figures rest on", lambda t, f: formats.count(f.tokens)),
    Figure(
        f"experts of {BATCH} consecutive tokens",
        "distinct ones of a layer; chance: E (1 − (1 − k/E)^B)",
        _distinct,
        _uniform_distinct,
    ),
    Figure(
        "overlap of consecutive tokens",
        "share of a token's experts that the one before had; chance: k/E",
        lambda t, f: formats.percent(f.consecutive_overlap.mean),
        lambda t, f: formats.percent(f.chance_overlap),
    ),
    Figure(
        "load CV",
        "standard deviation of the experts' loads over their mean; chance: 0",
        lambda t, f: formats.number(f.load_cv.mean),
    ),
    Figure(
        "effective experts",
        "as many equally used experts would have the load's entropy; chance: E",
        lambda t, f: formats.number(f.effective_experts.mean),
        lambda t, f: str(t.experts),
    ),
    Figure(
        "next layer: information",
        "that a layer's experts give about the next one's, over the entropy; chance: tokens paired with others half a trace away",
        lambda t, f: formats.percent(f.next_layer_information.mean),
        lambda t, f: formats.percent(f.chance_next_layer_information.mean),
    ),
    Figure(
        "next layer: transition table",
        "learned on the first half, judged on the second: recall of its k best; chance: the k most popular",
        lambda t, f: formats.percent(f.successor_recall.mean),
        lambda t, f: formats.percent(f.popularity_recall.mean),
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
        lambda t, f: formats.percent(f.segment_routing_performance.mean),
    ),
    Figure(
        "SCH, segments of 16",
        "segment cache hit rate: a cache of 2 k experts a layer that sees the next 16 tokens, a bound",
        lambda t, f: formats.percent(f.segment_cache_hit_rate.mean),
    ),
    Figure("one token's cycle", "experts of its pass through all layers: at batch 1 a smaller global LRU hits next to nothing", _cycle),
    Figure(
        "drift, bits",
        "Jensen-Shannon divergence of the loads of the trace's halves; chance: of every second token",
        lambda t, f: formats.number(f.drift_bits.mean),
        lambda t, f: formats.number(f.chance_drift_bits.mean),
    ),
)
