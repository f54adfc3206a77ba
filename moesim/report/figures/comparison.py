"""Policies side by side: the ranking of a cell with its intervals, and curves over cache size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING

from moesim.report.figures import palette
from moesim.report.figures.lines import DASHES, Style
from moesim.results.comparison import RankRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Ratios further apart than this are drawn on a logarithmic axis.
WIDE = 4.0
#: The least that an axis of ratios spans.
NARROWEST = (0.98, 1.03)
LABEL_CHARACTERS = 20
_LABEL_ROOM = 0.2


@dataclass(frozen=True)
class Ranking:
    """A cell's ranking."""

    title: str
    rows: Sequence[RankRow]
    looks: Mapping[str, Style]


@dataclass(frozen=True)
class Curves:
    """Values over cache size: for each policy its points (slots, the value with each seed).

    ``floor``: what nothing can be below, as (slots, value); ``ceiling``: above.
    ``cliffs``: (policy, smaller slots, larger slots).
    """

    points: Mapping[str, Sequence[tuple[float, Sequence[float]]]]
    looks: Mapping[str, Style]
    sizes: Mapping[float, str]
    label: str
    is_share: bool = False
    floor: Sequence[tuple[float, float]] = ()
    ceiling: Sequence[tuple[float, float]] = ()
    cliffs: Sequence[tuple[str, float, float]] = ()


def ranking(figure: Figure, data: Ranking) -> None:
    """A dot and its interval for each policy, fastest on top; hollow where nothing tells it from the fastest."""
    axes = figure.subplots()
    _ratio_axis(axes, data.rows)
    axes.axvline(1, color=palette.INK, linewidth=0.8)
    for place, row in enumerate(data.rows):
        _rank(axes, place, row, data.looks[row.policy])
    names = [fill(row_label(row), LABEL_CHARACTERS) for row in data.rows]
    axes.set_yticks(range(len(data.rows)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(data.rows) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("mean TPOT, × that of the fastest real policy (left is faster)")
    axes.set_title(data.title, loc="left", fontweight="bold")
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.27, right=0.985, bottom=0.4 / height, top=1 - 0.22 / height)


def row_label(row: RankRow) -> str:
    """A policy's name, and that it is a bound."""
    return f"{row.policy} (bound)" if row.needs_future else row.policy


def _ratio_axis(axes: Axes, rows: Sequence[RankRow]) -> None:
    """Around all intervals, with room for words on the right; never so narrow that noise looks like a difference."""
    ends = [end for row in rows for end in (row.slower_than_best, *(row.interval or ()))]
    low, high = min([NARROWEST[0], *ends]), max([NARROWEST[1], *ends])
    if high / low > WIDE:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.1, high * (high / low) ** 0.4)
        axes.xaxis.set_minor_formatter(lambda ratio, _: f"{ratio:g}×" if round(ratio, 6) in (0.5, 2, 5) else "")
    else:
        axes.set_xlim(low - 0.04 * (high - low), high + 0.35 * (high - low))
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:.4g}×")


def _rank(axes: Axes, place: int, row: RankRow, look: Style) -> None:
    end = row.slower_than_best
    if row.interval is not None:
        style = DASHES if look.dashed else "-"
        axes.plot(row.interval, (place, place), color=look.colour, linewidth=1.6, linestyle=style)
        end = max(end, row.interval[1])
    is_open = row.distinguishable is False
    face = "white" if is_open else look.colour
    axes.plot(
        row.slower_than_best, place, look.marker, color=face, markersize=5, markeredgecolor=look.colour, clip_on=False
    )
    told = "not distinguishable" if is_open and not row.needs_future else ""
    if told:
        axes.annotate(told, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=6.8)


def curves(figure: Figure, data: Curves) -> None:
    """A line for each policy over cache size; ranges over seeds as strokes; a cliff as a broad stroke."""
    axes = figure.subplots()
    scale = 100 if data.is_share else 1
    means = {
        policy: {slots: scale * fmean(values) for slots, values in points} for policy, points in data.points.items()
    }
    if data.floor:
        sizes, floor = zip(*data.floor, strict=True)
        axes.fill_between(sizes, floor, color=palette.FAINT, linewidth=0)
        axes.plot(sizes, floor, color=palette.INK, linewidth=0.9, linestyle=(0, (1, 1.2)))
    if data.ceiling:
        sizes, ceiling = zip(*data.ceiling, strict=True)
        axes.plot(sizes, ceiling, color=palette.INK, linewidth=0.9, linestyle=(0, (1, 1.2)), marker="_")
    for policy, smaller, larger in data.cliffs:
        found = [(slots, means[policy][slots]) for slots in (smaller, larger) if slots in means.get(policy, {})]
        axes.plot(*zip(*found, strict=True), color=data.looks[policy].colour, linewidth=6, alpha=0.3)
    for policy, points in data.points.items():
        look = data.looks[policy]
        axes.plot(list(means[policy]), list(means[policy].values()), **look.line())
        for slots, values in points:
            if len(values) > 1:
                axes.vlines(slots, scale * min(values), scale * max(values), color=look.colour, linewidth=0.8)
    _size_axis(axes, data.sizes)
    axes.set_ylim(bottom=0, top=101 if data.is_share else None)
    axes.grid(axis="y")
    axes.set_ylabel(data.label)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    figure.subplots_adjust(left=0.145, right=0.975, bottom=0.175, top=0.965)


def _size_axis(axes: Axes, sizes: Mapping[float, str]) -> None:
    """Ticks at the sizes that were run, as many as there is room for, counted from the largest."""
    places = sorted(sizes)
    if places[0] > 0 and len(places) > 2:
        axes.set_xscale("log")
    axes.minorticks_off()
    low, high = axes.get_xlim()
    at = axes.transData.transform
    width = abs(at((high, 0))[0] - at((low, 0))[0])
    ticks: list[float] = []
    for slots in reversed(places):
        if not ticks or at((ticks[-1], 0))[0] - at((slots, 0))[0] > _LABEL_ROOM * width:
            ticks.append(slots)
    axes.set_xticks(ticks, [sizes[slots] for slots in ticks])
    axes.set_xlabel("GPU cache for experts")
