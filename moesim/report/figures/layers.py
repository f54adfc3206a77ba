"""Layer by layer: time, lookups, and which experts the GPU held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from moesim.report.figures import palette
from moesim.results import Result
from moesim.results.result import LayerRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def layer_time(figure: Figure, layers: Sequence[LayerRow]) -> None:
    """Seconds of each layer over the run, computing and waiting; below, the mean duration of a decode visit."""
    total, visit = figure.subplots(2, sharex=True, height_ratios=(1.5, 1))
    compute = [layer.compute_s for layer in layers]
    stall = [layer.stall_s for layer in layers]
    _stack(total, {"computing": compute, "waiting": stall}, (palette.COMPUTE, palette.STALL))
    total.set_ylabel("whole run (s)")
    total.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    means = [np.nan if layer.mean_decode_visit_s is None else 1e3 * layer.mean_decode_visit_s for layer in layers]
    visit.plot(range(len(layers)), means, "o", color=palette.INK, markersize=2.6)
    longest = np.nanmax([0.0, *means])
    visit.set_ylim(0, 1.15 * longest if longest > 0 else 1)
    visit.set_ylabel("mean decode\nvisit (ms)")
    visit.set_xlabel("MoE layer")
    for axes in (total, visit):
        axes.grid(axis="y")
    _layer_ticks(visit, layers)
    figure.align_ylabels()
    figure.subplots_adjust(left=0.145, right=0.985, bottom=0.15, top=0.92, hspace=0.16)


def lookups(figure: Figure, layers: Sequence[LayerRow]) -> None:
    """Misses, late and hits of each layer, as shares of its lookups; misses at the bottom, where they compare best."""
    axes = figure.subplots()
    counts = np.array([[getattr(layer, name) for name in palette.LOOKUPS] for layer in layers], dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    _stack(axes, dict(zip(palette.LOOKUPS, shares.T, strict=True)), tuple(palette.LOOKUPS.values()))
    axes.set_ylim(0, 100)
    axes.set_xlabel("MoE layer")
    axes.set_ylabel("share of lookups (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3, reverse=True)
    _layer_ticks(axes, layers)
    figure.subplots_adjust(left=0.145, right=0.985, bottom=0.15, top=0.92)


def residency(figure: Figure, result: Result) -> None:
    """Heat map of the share of visits at whose end each expert was on the GPU; beside it the mean held per layer."""
    share = 100 * np.array(result.residency.gpu_share)
    layers, experts = share.shape
    heat, held = figure.subplots(1, 2, sharey=True, width_ratios=(4.2, 1))
    image = heat.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto", interpolation="none")
    heat.set_xlabel("expert")
    heat.set_ylabel("MoE layer")
    edges = np.arange(layers + 1) - 0.5
    held.stairs(share.sum(axis=1) / 100, edges, orientation="horizontal", fill=True, color=palette.BLUE)
    held.set_xlim(0, experts)
    held.set_xticks([0, experts])
    held.set_xlabel("experts held\n(mean)")
    held.tick_params(axis="y", length=0, labelleft=False)
    places = range(0, layers, _every(layers))
    heat.set_yticks(places, [str(result.layers[place].layer) for place in places])
    scale = figure.colorbar(image, cax=figure.add_axes((0.125, 0.95, 0.3, 0.025)), orientation="horizontal")
    scale.outline.set_visible(False)
    scale.ax.set_xticks([0, 50, 100])
    scale.ax.tick_params(length=0, pad=2)
    figure.text(0.445, 0.963, "% of visits", va="center")
    figure.subplots_adjust(left=0.125, right=0.975, bottom=0.155, top=0.865, wspace=0.06)


def _stack(axes: Axes, parts: Mapping[str, ArrayLike], colours: Sequence[str]) -> None:
    """Columns of parts, one column for each layer; one path for each part, however many layers there are."""
    below: ArrayLike = 0.0
    for (name, heights), colour in zip(parts.items(), colours, strict=True):
        top = np.add(below, heights)
        edges = np.arange(len(top) + 1) - 0.5
        axes.stairs(top, edges, baseline=below, fill=True, color=colour, label=name)
        below = top


def _layer_ticks(axes: Axes, layers: Sequence[LayerRow]) -> None:
    places = range(0, len(layers), _every(len(layers)))
    axes.set_xticks(places, [str(layers[place].layer) for place in places])
    axes.set_xlim(-0.5, len(layers) - 0.5)


def _every(count: int) -> int:
    """So that at most about sixteen ticks stand on an axis."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200) if count <= 16 * step or step == 200)
