"""Candidates of a plan: what they cost against how long answers take, and what energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from moesim.report.figures import palette
from moesim.results.capacity import CandidateRow, CapacityResult, Recommendation
from moesim.units import format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def trade_off(figure: Figure, data: tuple[CapacityResult, Recommendation]) -> None:
    """Cost against mean latency and, where it is known, energy: within the limits, outside of them, recommended."""
    result, advice = data
    rows = [row for row in result.candidates if row.load == advice.load and row.figures is not None]
    front = [result.candidates[place] for place in advice.pareto]
    has_energy = any(_energy(row) is not None for row in rows)
    panels = figure.subplots(2 if has_energy else 1, 1, squeeze=False)[:, 0]
    _panel(panels[0], rows, front, advice.candidate, _latency)
    panels[0].set_ylabel("mean latency of a request")
    panels[0].set_yscale("log")
    panels[0].yaxis.get_major_locator().set_params(subs=(1, 2, 3, 5, 7))
    panels[0].yaxis.set_major_formatter(lambda value, _: format_seconds(value).replace(".00", ""))
    panels[0].yaxis.set_minor_formatter("")
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    if has_energy:
        _panel(panels[1], rows, front, advice.candidate, _energy)
        panels[1].set_ylabel("J per output token")
        panels[1].set_ylim(bottom=0)
    panels[-1].set_xlabel("USD per hour")
    figure.subplots_adjust(left=0.17, right=0.96, bottom=0.09, top=0.91, hspace=0.15)


def _panel(
    axes: Axes,
    rows: list[CandidateRow],
    front: list[CandidateRow],
    best: CandidateRow,
    value: Callable[[CandidateRow], float | None],
) -> None:
    for met, colour, label in (
        (False, palette.FAINT, "outside of the limits"),
        (True, palette.SKY, "within the limits"),
    ):
        _points(axes, [row for row in rows if row.figures and row.figures.met == met], value, "o", colour, 4, label)
    _points(axes, front, value, "o", palette.BLUE, 5, "no other beats it")
    _points(axes, [best], value, "D", palette.SERIES[1], 5, "recommended")
    axes.grid(axis="both")


def _points(
    axes: Axes,
    rows: list[CandidateRow],
    value: Callable[[CandidateRow], float | None],
    marker: str,
    colour: str,
    size: int,
    label: str,
) -> None:
    points = [(row.usd_per_hour, found) for row in rows if (found := value(row)) is not None]
    if points:
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=size, label=label)


def _latency(row: CandidateRow) -> float | None:
    return row.figures.latency_mean_s if row.figures else None


def _energy(row: CandidateRow) -> float | None:
    return row.figures.joule_per_output_token if row.figures else None
