"""Candidates of a plan: what they cost against how long answers take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.report.figures import palette
from moesim.results.capacity import CandidateRow, CapacityResult, Recommendation
from moesim.units import format_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def trade_off(figure: Figure, data: tuple[CapacityResult, Recommendation]) -> None:
    """Cost against mean latency: within the limits, outside of them, the best trade-offs, the recommended one."""
    result, advice = data
    axes = figure.subplots()
    rows = [row for row in result.candidates if row.load == advice.load and row.figures is not None]
    for met, colour, label in (
        (False, palette.FAINT, "outside of the limits"),
        (True, palette.SKY, "within the limits"),
    ):
        points = [(row.usd_per_hour, _latency(row)) for row in rows if row.figures and row.figures.met == met]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=4, label=label)
    front = sorted((row.usd_per_hour, _latency(row)) for place in advice.pareto if (row := result.candidates[place]))
    if front:
        axes.plot(*zip(*front, strict=True), "-", color=palette.BLUE, linewidth=0.8, label="no other beats these")
    best = advice.candidate
    axes.plot([best.usd_per_hour], [_latency(best)], "D", color=palette.SERIES[1], markersize=5, label="recommended")
    axes.set_xlabel("USD per hour")
    axes.set_ylabel("mean latency of a request")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: format_seconds(value).replace(".00", ""))
    axes.grid(axis="both")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    figure.subplots_adjust(left=0.16, right=0.96, bottom=0.13, top=0.87)


def _latency(row: CandidateRow) -> float:
    return row.figures.latency_mean_s if row.figures else 0.0
