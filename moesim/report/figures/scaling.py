"""How long it takes to simulate a cluster, as GPUs and as tokens grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moesim.report.figures import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scaling(figure: Figure, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """CPU seconds over each quantity, both axes logarithmic; a line of slope 1 beside each.

    Args:
        curves: what grows -> (how much, seconds), ascending.
    """
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        sizes, seconds = zip(*points, strict=True)
        axis.loglog(sizes, seconds, "o-", color=palette.BLUE, markersize=3.5, linewidth=1.4)
        axis.loglog(sizes, [seconds[0] * size / sizes[0] for size in sizes], ":", color=palette.GREY, linewidth=1)
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes], rotation=40)
        axis.set_xlabel(name)
        axis.grid(visible=True)
    axes[0].set_ylabel("CPU seconds a pass")
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.28, top=0.96, wspace=0.15)
