"""The report of a capacity plan, read from the saved result alone. Words and order are in ``capacity.html.j2``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from markupsafe import Markup

from moesim.report import formats
from moesim.report.figures.canvas import draw
from moesim.report.figures.capacity import trade_off
from moesim.report.figures.palette import EVIDENCE
from moesim.report.kinds.run import Figure
from moesim.report.render import render, split_warning
from moesim.results.capacity import (
    CandidateRow,
    CapacityResult,
    Recommendation,
    choices,
    load_capacity_result,
    named,
    safety,
)
from moesim.units import format_seconds

FILE = "capacity.json"
LABELS = {
    "synthetic": "the routing was generated, not captured",
    "stand-in": "the routing is another model's, or its layers are repeated",
}


@dataclass(frozen=True)
class Advice:
    """A load's recommendation as the page shows it. ``rows``: what a row is, and the candidate."""

    advice: Recommendation
    headline: list[Figure]
    answer: str
    rows: list[tuple[str, str, CandidateRow]]
    figure: Markup
    evidence: list[tuple[str, float]]


def page(path: Path) -> str:
    """The page of a saved plan.

    Raises:
        ResultError: it can't be read.
    """
    return render_capacity(load_capacity_result(path))


def render_capacity(result: CapacityResult) -> str:
    """A plan as one self-contained HTML page: the same result gives the same bytes."""
    labels = [f"{label}: {LABELS.get(label, 'the routing is not the model’s own')}" for label in result.labels]
    return render(
        "capacity.html.j2",
        result=result,
        title=f"{result.base_scenario['model']}: capacity plan",
        question=result.question or "What must be bought or rented for this load?",
        warnings=[split_warning(warning) for warning in [*labels, *result.warnings]],
        loads=[_advice(result, advice) for advice in result.recommendations],
        cut=_cut(result),
        plan=yaml.safe_dump(result.plan, sort_keys=False, allow_unicode=True, width=100),
    )


def _advice(result: CapacityResult, advice: Recommendation) -> Advice:
    rows = [(what, named(row, result), row) for what, row in choices(advice, result)]
    alt = "Candidates by cost per hour, mean latency and energy"
    return Advice(
        advice=advice,
        headline=list(_headline(advice)),
        answer=_answer(advice, result),
        rows=rows,
        figure=draw(trade_off, (result, advice), height_in=5.2, alt=alt),
        evidence=[(kind, advice.evidence_shares[kind]) for kind in EVIDENCE if kind in advice.evidence_shares],
    )


def _answer(advice: Recommendation, result: CapacityResult) -> str:
    row = advice.candidate
    if not advice.found:
        good = formats.percent(row.figures.good_share if row.figures else None)
        nearest = f"{named(row, result)}, with {good} of requests within them"
        return f"Nothing in the plan keeps to the limits. Nearest: {nearest}."
    proof = ", and nothing cheaper in the plan does" if advice.proven else ""
    margin = ""
    if advice.holds_load is not None:
        margin = (
            f" It carries {advice.holds_load:g} times the load." if advice.holds_load > 1 else " It carries no more."
        )
    return f"{named(row, result)}: keeps to the limits{proof}.{margin} {safety(advice, result)}"


def _headline(advice: Recommendation) -> Iterator[Figure]:
    row = advice.candidate
    bought = f"{row.usd:,.0f} USD to buy" if row.usd else "rented"
    gpus = "1 GPU" if row.gpus == 1 else f"{row.gpus} GPUs"
    yield Figure("Cost", f"{row.usd_per_hour:.3g}", "USD/h", f"{gpus}, {bought}")
    if row.figures is None:
        return
    value, unit = formats.percent(row.figures.good_share).split(" ")
    yield Figure("Within the limits", value, unit, "of the requests")
    for name, seconds in (("TTFT, p99", row.figures.ttft_p99_s), ("TPOT, p99", row.figures.tpot_p99_s)):
        value, _, unit = format_seconds(seconds).partition(" ")
        yield Figure(name, value, unit, "99 of 100 requests are faster")
    yield Figure("Error bar", f"{100 * advice.error_bar:.0f}", "%", "of step times, by what they rest on")


def _cut(result: CapacityResult) -> list[tuple[str, str, str]]:
    """Configurations that were cut: load, name, why."""
    return [(row.load, " · ".join(row.options.values()), row.cut) for row in result.candidates if row.cut]
