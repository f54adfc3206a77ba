"""The report of routing traces, one or several side by side, read from their saved figures alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from moesim.report import formats
from moesim.report.figures import routing
from moesim.report.figures.canvas import draw
from moesim.report.figures.lines import Style, styles
from moesim.report.figures.routing import Chart, Line
from moesim.report.render import render
from moesim.report.routing_table import BATCH, main_phase, table
from moesim.results.trace_figures import PerLayer, PhaseFigures, SavedTraces, TraceFigures, load_traces

FILE = "trace.json"
#: Fewer tokens than this make every figure rough.
FEW_TOKENS = 2000
#: Keys of a card that are told as they are.
_TOLD_OF_CARD = ("source", "tool", "num_shared_experts", "expert_precision")


@dataclass(frozen=True)
class Told:
    """One trace: its figures of the phase that is shown, its look, and what is drawn of it alone."""

    trace: TraceFigures
    phase: str
    figures: PhaseFigures
    look: Style
    distinct: Markup
    groups: Markup | None
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]


def page(path: Path) -> str:
    """The page of saved figures.

    Raises:
        ResultError: they can't be read.
    """
    return render_trace(load_traces(path))


def render_trace(saved: SavedTraces) -> str:
    """Figures of traces as one self-contained HTML page: the same figures give the same bytes."""
    names = _names(saved.traces)
    looks = styles(names)
    told = [tell(name, trace, looks[name]) for name, trace in zip(names, saved.traces, strict=True)]
    alone = len(told) == 1
    return render(
        "trace.html.j2",
        title="Routing trace" if alone else f"{len(told)} routing traces",
        question="How much do the tokens of this trace share?" if alone else "How alike are these routing traces?",
        alike=alike(told),
        answers=[(name, one.look.key(), answer(one)) for name, one in zip(names, told, strict=True)],
        warnings=[warning for one in told for warning in warnings(one)],
        told=dict(zip(names, told, strict=True)),
        columns=columns(names, saved.traces),
        table=table(saved.traces),
        charts=charts(told),
        lookaheads=sorted({distance for one in told for distance in one.figures.lookahead_recall}),
    )


def _names(traces: Sequence[TraceFigures]) -> list[str]:
    """Names that differ, also where traces of one name are compared."""
    names: list[str] = []
    for trace in traces:
        is_taken = trace.name in names
        names.append(f"{trace.name} ({len(names) + 1})" if is_taken else trace.name)
    return names


def tell(name: str, trace: TraceFigures, look: Style) -> Told:
    """What the page says of one trace, under a name that no other has."""
    phase = main_phase(trace)
    figures = trace.phases[phase]
    notes = trace.card.get("notes", [])
    return Told(
        trace=trace,
        phase=phase,
        figures=figures,
        look=look,
        distinct=draw(
            routing.distinct,
            (figures.distinct, look.colour),
            height_in=2.6,
            alt=f"Distinct experts of a layer that a batch of tokens touches, {name}",
        ),
        groups=_groups(name, figures, look.colour),
        facts=list(_facts(trace)),
        notes=[str(note) for note in notes] if isinstance(notes, list) else [str(notes)],
    )


def answer(one: Told) -> str:
    """In three sentences: what a batch touches, what consecutive tokens share, what a cache makes of it."""
    trace, figures = one.trace, one.figures
    sentences = []
    batch = next((row for row in figures.distinct if row.batch == BATCH and row.sequence is not None), None)
    if batch is not None:
        sentences.append(
            f"{BATCH} consecutive tokens touch {formats.number(batch.sequence)} of a layer's {trace.experts} experts "
            f"in the mean (uniform routing: {formats.number(batch.uniform)})."
        )
    overlap = figures.consecutive_overlap.mean
    if overlap is not None:
        chance = formats.times(overlap / figures.chance_overlap)
        sentences.append(
            f"A token shares {formats.percent(overlap)} of its experts with the one before, {chance} chance."
        )
    lru = trace.layer_lru
    if lru.hit_rate_per_lookup is not None:
        sentences.append(
            f"While decoding, an LRU of {lru.slots} experts in each layer hits "
            f"{formats.percent(lru.hit_rate_per_lookup)} of lookups (uniform routing: {formats.percent(lru.uniform)})."
        )
    return " ".join(sentences) or "It has too few tokens for any figure."


def alike(told: Sequence[Told]) -> str:
    """How far the traces are from each other, in multiples of uniform routing."""
    ranges = []
    for words, ratio in _RATIOS.items():
        known = [found for one in told if (found := ratio(one)) is not None]
        if len(known) > 1:
            ranges.append(f"{words} {formats.times(min(known))} to {formats.times(max(known))}")
    if not ranges:
        return ""
    return f"In multiples of what uniform routing would give: {'; '.join(ranges)}."


def _overlap_ratio(one: Told) -> float | None:
    mean = one.figures.consecutive_overlap.mean
    return None if mean is None else mean / one.figures.chance_overlap


def _distinct_ratio(one: Told) -> float | None:
    row = next((row for row in one.figures.distinct if row.batch == BATCH), None)
    return None if row is None or row.sequence is None else row.sequence / row.uniform


def _lru_ratio(one: Told) -> float | None:
    lru = one.trace.layer_lru
    return None if lru.hit_rate_per_lookup is None else lru.hit_rate_per_lookup / lru.uniform


_RATIOS: Mapping[str, Callable[[Told], float | None]] = {
    "a token shares experts with the one before": _overlap_ratio,
    f"{BATCH} consecutive tokens touch": _distinct_ratio,
    "an LRU of 2 k experts in each layer hits": _lru_ratio,
}


def warnings(one: Told) -> Iterator[tuple[str, str]]:
    """What a reader has to know before the numbers."""
    trace = one.trace
    if trace.origin == "synthetic" or "synthetic" in trace.labels:
        yield "synthetic", f"{trace.name} was generated, not recorded from a model."
    for label in trace.labels:
        if label != "synthetic":
            yield label, f"says the card of {trace.name}."
    if trace.card.get("training"):
        told = "was trained for it: the routing is real, its magnitudes are not those of a large model"
        yield "small model", f"the model behind {trace.name} {told}."
    if trace.transforms:
        yield "transformed", f"{trace.name}: {', '.join(trace.transforms)}."
    if trace.tokens_used < trace.tokens:
        yield "cut", f"figures of {trace.name} rest on its first {trace.tokens_used:,} of {trace.tokens:,} tokens."
    if one.figures.tokens < FEW_TOKENS:
        yield "few tokens", f"{trace.name} has {one.figures.tokens:,} tokens of {one.phase}: its figures are rough."
    if one.phase != "decode":
        yield "no decode", f"{trace.name} has no decode tokens; its figures are of {one.phase}."


def columns(names: Sequence[str], traces: Sequence[TraceFigures]) -> list[tuple[str, str]]:
    """Of the table: a trace and a phase; every phase where there is only one trace."""
    if len(traces) == 1:
        return [(phase, "") for phase in traces[0].phases]
    return [(name, main_phase(trace)) for name, trace in zip(names, traces, strict=True)]


def charts(told: Sequence[Told]) -> dict[str, Markup]:
    """The figures with a line for each trace."""
    drawn = {
        name: Chart([line for one in told for line in lines(one)], label, is_share=is_share)
        for name, (lines, label, is_share) in _BY_LAYER.items()
    }
    drawn["reuse"] = Chart(
        [_limits(one) for one in told], "chosen again within so many (%)", "tokens", is_share=True, x_base=2
    )
    curves = [line for one in told for line in _hit_lines(one)]
    if curves:
        x_label = "cache, as a share of all experts' bytes"
        marks = {f"{place:.3f}": (place, colour) for one in told for place, colour in _cliff(one)}
        drawn["hits"] = Chart(
            curves, "hit rate per lookup (%)", x_label, is_share=True, x_base=2, marks=list(marks.values())
        )
    return {
        name: draw(routing.chart, data, height_in=2.4, alt=f"{data.label} by {data.x_label}")
        for name, data in drawn.items()
        if any(value is not None for line in data.lines for value in line.values)
    }


def _of(name: str, beside: str | None = None) -> Callable[[Told], list[Line]]:
    """Lines of a figure of every layer, and dashed what it is held against."""

    def lines(one: Told) -> list[Line]:
        found = [Line(getattr(one.figures, name).layers, one.look)]
        if beside is not None:
            other: PerLayer | float = getattr(one.figures, beside)
            values = other.layers if isinstance(other, PerLayer) else [other] * one.trace.layers
            found.append(Line(values, one.look, dashed=True))
        return found

    return lines


def _lookahead(one: Told) -> list[Line]:
    recalls = one.figures.lookahead_recall
    return [Line(recall.layers, one.look, dashed=distance > min(recalls)) for distance, recall in recalls.items()]


_BY_LAYER: Mapping[str, tuple[Callable[[Told], list[Line]], str, bool]] = {
    "load": (_of("load_cv"), "load CV over experts", False),
    "overlap": (_of("consecutive_overlap", "chance_overlap"), "shared with the token before (%)", True),
    "next_layer": (_of("successor_recall", "popularity_recall"), "next layer guessed (%)", True),
    "information": (
        _of("next_layer_information", "chance_next_layer_information"), "information / entropy (%)", True,
    ),
    "lookahead": (_lookahead, "lookahead recall (%)", True),
    "segments": (_of("segment_cache_hit_rate", "segment_routing_performance"), "SCH, SRP (%)", True),
}  # fmt: skip


def _limits(one: Told) -> Line:
    reuse = one.figures.reuse_within_tokens
    return Line(list(reuse.values()), one.look, x=list(reuse))


def _hit_lines(one: Told) -> Iterator[Line]:
    """The first curve solid, those beside it dashed: only the optimum is wanted beside a policy."""
    for number, curve in enumerate(one.trace.hit_curves):
        yield Line(curve.hit_rate_per_lookup, one.look, dashed=number > 0, x=curve.capacity_share)


def _cliff(one: Told) -> Iterator[tuple[float, str]]:
    """Where a global LRU holds just what one token's cycle through the layers asks for."""
    trace, figures = one.trace, one.figures
    curve = trace.hit_curves[0] if trace.hit_curves else None
    if curve is None:
        return
    every = curve.capacity_bytes[-1] / curve.capacity_share[-1]
    cycle = figures.cycle_bytes if figures.cycle_bytes is not None else figures.cycle_experts
    if cycle is not None:
        yield cycle / every, one.look.colour


def _groups(name: str, figures: PhaseFigures, colour: str) -> Markup | None:
    if not figures.domains:
        return None
    mean = figures.mean_request
    references = {"effective_experts": figures.effective_experts.mean}
    references["divergence_from_rest"] = None if mean is None else mean.divergence_from_rest
    rows = sorted(figures.domains, key=lambda group: group.effective_experts or 0.0)
    height = 0.6 + 0.16 * len(rows)
    alt = f"Effective experts and divergence of each domain, {name}"
    return draw(routing.groups, (rows, references, colour), height_in=height, alt=alt)


def _facts(trace: TraceFigures) -> Iterator[tuple[str, str]]:
    yield "model", trace.model
    yield "shape", f"{trace.layers} MoE layers, top {trace.top_k} of {trace.experts} experts"
    tokens = ", ".join(f"{figures.tokens:,} {phase}" for phase, figures in trace.phases.items() if phase != "all")
    yield "tokens", f"{trace.tokens:,} in {trace.requests:,} requests; {tokens}"
    yield "recorded", f"{formats.percent(trace.recorded_share)} of choices"
    yield "origin", ", ".join([trace.origin, *trace.labels, *trace.transforms])
    yield "licence", trace.licence or "unknown"
    for key in _TOLD_OF_CARD:
        if trace.card.get(key):
            yield formats.words(key), formats.value(key, trace.card[key])
    yield "SHA-256", trace.sha256
