"""The figure of a comparison on clusters: each system's step, cut into what GPUs compute and what they wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moesim.report.figures import palette
from moesim.results.cluster_comparison import SystemRow
from moesim.results.result import TimeShare
from moesim.units import format_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Group -> colour; computing is blue, waiting is warm.
COLOURS: Mapping[str, str] = {
    "routed experts": palette.BLUE,
    "other computing": palette.PALE_BLUE,
    "dispatch and combine": "#e69f00",
    "slower GPUs": "#b0568e",
    "other waiting": "#f6d68f",
}


def grouped(breakdown: Sequence[TimeShare]) -> dict[str, float]:
    """Shares of the time by group, in the order of ``COLOURS``."""
    shares = dict.fromkeys(COLOURS, 0.0)
    for part in breakdown:
        shares[_group(part.name)] += part.share
    return shares


def _group(name: str) -> str:
    if name == "routed experts":
        return name
    if not name.startswith("waiting"):
        return "other computing"
    if name in ("waiting: dispatch", "waiting: combine"):
        return "dispatch and combine"
    return "slower GPUs" if name == "waiting: slower GPUs" else "other waiting"


def steps(figure: Figure, rows: Sequence[SystemRow]) -> None:
    """Time of a step, one bar for each system."""
    axes = figure.subplots()
    for place, row in enumerate(rows):
        left = 0.0
        for name, share in grouped(row.breakdown).items():
            width = share * row.step_s * 1e3
            axes.barh(place, width, left=left, height=0.62, color=COLOURS[name], edgecolor="white", linewidth=0.3)
            left += width
        told = f" {format_seconds(row.step_s)}, {row.speedup:.2f}×" + ("" if row.fits else ", no room")
        axes.text(left, place, told, va="center", fontsize=6.5)
    axes.set_yticks(range(len(rows)), [_short(row.system) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(row.step_s for row in rows) * 1e3 * 1.4)
    axes.set_xlabel("mean step (ms)")
    figure.subplots_adjust(left=0.36, right=0.98, bottom=0.42 / figure.get_figheight(), top=0.97)


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
