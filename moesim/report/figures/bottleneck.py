"""What would help most."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from moesim.report.figures import palette
from moesim.results.result import WhatIf

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def speedups(figure: Figure, what_if: Sequence[WhatIf]) -> None:
    """A bar from 1 to the speed-up for each change, most helpful on top; a dot for decode alone."""
    axes = figure.subplots()
    rows = range(len(what_if))
    gains = [change.speedup - 1 for change in what_if]
    axes.barh(rows, gains, left=1, height=0.62, color=palette.BLUE, label="output tokens/s")
    decode = [(row, change.decode_speedup) for row, change in enumerate(what_if) if change.decode_speedup is not None]
    if decode:
        places, values = zip(*decode, strict=True)
        axes.plot(values, places, "o", color=palette.INK, markersize=3.2, label="decode tokens/s")
    for row, change in enumerate(what_if):
        furthest = max(change.speedup, change.decode_speedup or 0, 1)
        axes.annotate(f"{change.speedup:.2f}×", (furthest, row), (5, 0), textcoords="offset points", va="center")
    axes.axvline(1, color=palette.INK, linewidth=0.8)
    axes.set_yticks(rows, [fill(change.change, 22) for change in what_if])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlabel("speed-up (× this run)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2)
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.36, right=0.985, bottom=0.42 / height, top=1 - 0.2 / height)
