"""Figures of a run on many GPUs: loads of ranks, traffic between GPUs, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moesim.report.figures import palette
from moesim.results.parallel import Load, ParallelResult, PlacementRow
from moesim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What GPUs compute, by name; waiting is warm.
WORK = {
    "routed experts": palette.BLUE,
    "shared experts": "#3f94c9",
    "attention decode": palette.SKY,
    "attention prefill": palette.SKY,
    "projections": "#8fc9ea",
    "dense FFN": palette.PALE_BLUE,
    "router": "#cfe0ea",
}
WAITS = {
    "waiting: dispatch": "#e69f00",
    "waiting: combine": "#c04a00",
    "waiting: slower GPUs": "#b0568e",
    "waiting: pipeline bubble": "#6a3d7c",
    "waiting: moving weights": "#882255",
    "waiting: expert shards": "#f0b93a",
    "waiting: experts from host memory": "#7a4a1e",
    "waiting: gathering new context": "#d98c5f",
}


def of_part(name: str) -> str:
    """The colour of a part of the time."""
    if name in WAITS or name.startswith("waiting"):
        return WAITS.get(name, "#f6d68f")
    return WORK.get(name, palette.GREY)


def breakdown(figure: Figure, result: ParallelResult) -> None:
    """One bar: what GPUs compute, then what they wait for."""
    axes = figure.subplots()
    left = 0.0
    for part in sorted(result.breakdown, key=lambda part: (part.name.startswith("waiting"), -part.seconds)):
        width = 100 * part.share
        axes.barh(0, width, left=left, height=0.5, color=of_part(part.name), edgecolor="white", linewidth=0.4)
        left += width
    busy = 100 * sum(part.share for part in result.breakdown if not part.name.startswith("waiting"))
    axes.plot([busy, busy], [-0.34, 0.34], color=palette.INK, linewidth=1.2)
    axes.text(0, -0.36, f"GPUs compute {busy:.0f} %", va="bottom", fontsize=6.8)
    axes.text(100, -0.36, f"wait {100 - busy:.0f} %", va="bottom", ha="right", fontsize=6.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0.5, -0.66)
    axes.set_xlabel("share of the simulated time, mean over GPUs (%)")
    figure.subplots_adjust(left=0.03, right=0.97, bottom=0.32, top=0.98)


def ranks(figure: Figure, loads: Sequence[tuple[str, Load]]) -> None:
    """Pairs of each rank over each layer's mean, one map for each placement, on one scale."""
    from matplotlib.colors import TwoSlopeNorm

    maps = [np.array(load.layer_rank_share) for _, load in loads]
    top = max(2.0, float(max(values.max() for values in maps)))
    axes = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axis, values, (name, load) in zip(axes, maps, loads, strict=True):
        around_mean = TwoSlopeNorm(vmin=0.0, vcenter=1.0, vmax=top)
        image = axis.imshow(values, aspect="auto", cmap="RdBu_r", norm=around_mean, interpolation="nearest")
        mean = float(np.mean(load.layer_imbalance))
        axis.set_title(f"{name}: fullest rank {mean:.2f}× the mean, mean over layers", loc="left", fontsize=7)
        axis.set_ylabel("MoE layer")
        axis.set_xlabel("expert-parallel rank")
        axis.locator_params(integer=True)
    figure.subplots_adjust(left=0.11, right=0.84, bottom=0.42 / figure.get_figheight(), top=0.95, hspace=0.5)
    bar = figure.colorbar(image, cax=figure.add_axes((0.87, 0.25, 0.025, 0.55)))
    bar.set_label("pairs over the layer's mean", fontsize=7)
    bar.outline.set_visible(False)


def traffic(figure: Figure, loads: Sequence[tuple[str, Load]]) -> None:
    """Bytes of dispatch from row to column, one map for each placement, on one scale."""
    maps = [np.array(load.traffic_bytes) for _, load in loads]
    top = float(max(values.max() for values in maps)) or 1.0
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for axis, values, (name, load) in zip(axes, maps, loads, strict=True):
        image = axis.imshow(values / 1e6, cmap="Blues", vmin=0, vmax=top / 1e6, interpolation="nearest")
        axis.set_title(f"{name}\n{format_bytes(float(values.sum()))} in all", loc="left", fontsize=7)
        axis.set_xlabel(f"to {load.unit}")
        axis.locator_params(integer=True)
    axes[0].set_ylabel(f"from {loads[0][1].unit}")
    figure.subplots_adjust(left=0.09, right=0.84, bottom=0.1, top=0.9, wspace=0.28)
    bar = figure.colorbar(image, cax=figure.add_axes((0.87, 0.25, 0.025, 0.5)))
    bar.set_label("MB over all steps and layers", fontsize=7)
    bar.outline.set_visible(False)


def placements(figure: Figure, rows: Sequence[PlacementRow]) -> None:
    """Time of a step for each placement; the memory of replicas beside it."""
    axes = figure.subplots()
    names = [f"{row.policy}" + (f" +{row.redundant_experts}" if row.redundant_experts else "") for row in rows]
    times = [row.step_s * 1e3 for row in rows]
    colours = [palette.PALE_BLUE if row.replica_bytes_per_gpu == 0 else palette.BLUE for row in rows]
    axes.barh(range(len(rows)), times, height=0.6, color=colours)
    for place, row in enumerate(rows):
        memory = f", {format_bytes(row.replica_bytes_per_gpu)}/GPU" if row.replica_bytes_per_gpu else ""
        text = f" {format_seconds(row.step_s)}, {row.speedup:.2f}×{memory}"
        axes.text(times[place], place, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(times) * 1.65)
    axes.set_xlabel("mean step (ms)")
    figure.subplots_adjust(left=0.27, right=0.98, bottom=0.42 / figure.get_figheight(), top=0.97)


def exchanges(figure: Figure, result: ParallelResult) -> None:
    """How long dispatch and combine of a layer take: median to the worst, over layers and passes."""
    axes = figure.subplots()
    rows = result.exchanges
    for place, row in enumerate(rows):
        spread = row.per_layer_s
        axes.plot([spread.min * 1e6, spread.max * 1e6], [place, place], color=palette.FAINT, linewidth=5)
        axes.plot([spread.p50 * 1e6, spread.p99 * 1e6], [place, place], color="#e69f00", linewidth=5)
        axes.plot(spread.p50 * 1e6, place, "o", color=palette.INK, markersize=4)
        axes.text(
            spread.max * 1e6,
            place - 0.22,
            f"p50 {format_seconds(spread.p50)}, p99 {format_seconds(spread.p99)}",
            ha="right",
            va="bottom",
            fontsize=6.8,
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.set_xlabel("time of one layer's exchange, once the last GPU is ready (µs)")
    figure.subplots_adjust(left=0.17, right=0.97, bottom=0.3, top=0.97)


def links(figure: Figure, result: ParallelResult) -> None:
    """How busy links are: the mean of each kind, and the fullest."""
    axes = figure.subplots()
    rows = result.links
    for place, row in enumerate(rows):
        axes.barh(place, 100 * row.max_busy_share, height=0.5, color=palette.FAINT)
        axes.barh(place, 100 * row.mean_busy_share, height=0.5, color=palette.BLUE)
        axes.text(100 * row.max_busy_share, place, f" {100 * row.max_busy_share:.1f} %", va="center", fontsize=6.8)
    axes.set_yticks(range(len(rows)), [f"{row.level}\n{row.network}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(1.0, max(100 * row.max_busy_share for row in rows) * 1.25))
    axes.set_xlabel("busy share of the time (%): blue mean, grey the fullest link")
    figure.subplots_adjust(left=0.24, right=0.97, bottom=0.42 / figure.get_figheight(), top=0.97)
