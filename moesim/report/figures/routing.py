"""What a routing trace is like: experts of a batch, layer by layer, reuse, and hits over cache size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.report.figures import palette
from moesim.report.figures.lines import DASHES, Style
from moesim.results.trace_figures import Distinct, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Sequence[float | None]
#: Shares that reach so many percent have an axis up to 100.
NEARLY_HALF = 45


@dataclass(frozen=True)
class Line:
    """Values over x; ``dashed`` for what chance, popularity or knowledge of the future gives."""

    values: Values
    look: Style
    dashed: bool = False
    x: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """Lines in one frame; ``marks``: places on the x axis, where one token's cycle fits, with a colour."""

    lines: Sequence[Line]
    label: str
    x_label: str = "MoE layer"
    is_share: bool = False
    x_base: int | None = None
    marks: Sequence[tuple[float, str]] = ()


def distinct(figure: Figure, data: tuple[Sequence[Distinct], str]) -> None:
    """Experts of a layer that B tokens touch: recorded (coloured), if routing were uniform, and at most."""
    axes = figure.subplots()
    rows, colour = data
    batches = [row.batch for row in rows]
    axes.plot(batches, [row.bound for row in rows], color=palette.GREY, linewidth=1, linestyle=(0, (1, 1.2)))
    axes.plot(batches, [row.uniform for row in rows], color=palette.INK, linewidth=1.1, linestyle=DASHES)
    hollow: Any = {"markerfacecolor": "white", "markeredgewidth": 1.0, "markersize": 4, "linewidth": 0.9}
    _plot(axes, batches, [row.requests for row in rows], colour, marker="s", **hollow)
    _plot(axes, batches, [row.sequence for row in rows], colour, marker="o", markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_xlabel("tokens in the batch")
    axes.set_ylabel("distinct experts of a layer")
    figure.subplots_adjust(left=0.125, right=0.975, bottom=0.165, top=0.97)


def chart(figure: Figure, data: Chart) -> None:
    """The lines of a chart; shares in percent."""
    axes = figure.subplots()
    scale = 100 if data.is_share else 1
    for line in data.lines:
        values = [None if value is None else scale * value for value in line.values]
        places = line.x or range(len(values))
        style = {"linestyle": DASHES, "linewidth": 0.9} if line.dashed else {}
        marks = {} if line.dashed else {"marker": line.look.marker, "markersize": 3 if len(values) <= 32 else 2}
        _plot(axes, places, values, line.look.colour, **style, **marks)
    if data.x_base is not None:
        _powers(axes, data)
    axes.set_ylim(bottom=0)
    if data.is_share and axes.get_ylim()[1] > NEARLY_HALF:
        axes.set_ylim(top=101)
    axes.grid(axis="y")
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.label)
    for place, colour in data.marks:
        axes.axvline(place, color=colour, linewidth=0.9, linestyle=(0, (1, 1.2)))
        words: Any = {"rotation": 90, "fontsize": 6.5, "color": palette.INK, "transform": axes.get_xaxis_transform()}
        axes.text(place, 0.02, " one token's cycle", va="bottom", **words)
    figure.subplots_adjust(left=0.145, right=0.975, bottom=0.175, top=0.965)


def _powers(axes: Axes, data: Chart) -> None:
    """A logarithmic x axis with a tick at each place."""
    axes.set_xscale("log", base=data.x_base or 2)
    places = sorted({place for line in data.lines for place in line.x})
    axes.set_xticks(places, [str(Fraction(place).limit_denominator(64)) for place in places])
    axes.minorticks_off()


def groups(figure: Figure, data: tuple[Sequence[Group], Mapping[str, float | None], str]) -> None:
    """Of every domain, how many experts share its load, and how far it is from the rest; references as strokes."""
    rows, references, colour = data
    spread, apart = figure.subplots(1, 2, sharey=True)
    for axes, name in ((spread, "effective_experts"), (apart, "divergence_from_rest")):
        _plot(axes, [getattr(row, name) for row in rows], range(len(rows)), colour, marker="o", linestyle="")
        reference = references.get(name)
        if reference is not None:
            axes.axvline(reference, color=palette.INK, linewidth=0.9, linestyle=DASHES)
        axes.set_xlim(left=0)
        axes.grid()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    spread.set_xlabel("effective experts")
    apart.set_xlabel("bits from the other tokens")
    spread.set_yticks(range(len(rows)), [shorten(row.name, 22, placeholder="…") or row.name[:22] for row in rows])
    spread.set_ylim(len(rows) - 0.4, -0.6)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.31, right=0.97, bottom=0.42 / height, top=1 - 0.06 / height, wspace=0.14)


def _plot(axes: Axes, x: Sequence[float] | Values, y: Sequence[float] | Values, colour: str, **style: Any) -> None:
    """A line with gaps where a value is missing."""
    places, values = (np.array([np.nan if item is None else item for item in line], float) for line in (x, y))
    axes.plot(places, values, **{"color": colour, "markeredgewidth": 0, **style})
