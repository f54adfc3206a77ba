"""Curves over cache sizes, as files of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim.report.figures.canvas import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which colour-blind readers tell apart, and a marker for each.
_LINES = [("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"), ("#1c2430", "x")]

Point = Mapping[str, Any]


def plot_hit_curve(curves: Mapping[str, Sequence[Point]], trace: str, path: Path) -> None:
    """Draw hit rate per lookup over cache size.

    Args:
        curves: for each policy its points, with ``capacity_bytes`` and ``hit_rate_per_lookup``.
        trace: the trace's name, for the title.
        path: .svg, .png or .pdf.

    Raises:
        FileError: another suffix.
    """
    save(_hit_curves, (trace, curves), height_in=2.8, path=path)


def _hit_curves(figure: Figure, data: tuple[str, Mapping[str, Sequence[Point]]]) -> None:
    trace, curves = data
    axes = figure.subplots()
    for number, (policy, points) in enumerate(curves.items()):
        colour, marker = _LINES[number % len(_LINES)]
        known = sorted(
            (point["capacity_bytes"] / 2**30, 100 * point["hit_rate_per_lookup"])
            for point in points
            if point["hit_rate_per_lookup"] is not None
        )
        sizes, rates = zip(*known, strict=True) if known else ((), ())
        axes.plot(sizes, rates, color=colour, marker=marker if len(sizes) < 50 else "", markersize=3, label=policy)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 101)
    axes.grid()
    axes.set_xlabel("cache (GiB)")
    axes.set_ylabel("hit rate per lookup (%)")
    axes.set_title(trace, loc="right")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=4)
    figure.subplots_adjust(left=0.12, right=0.975, bottom=0.155, top=0.9)
