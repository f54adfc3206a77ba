"""A serving run over time, and what its requests waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.report.figures import palette
from moesim.results.serving import ServingResult
from moesim.units import format_seconds, parse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOAD = {"running": palette.BLUE, "waiting": palette.STALL}
METRICS = {"TTFT": palette.SERIES[1], "TPOT": palette.BLUE, "queueing": palette.GREY, "latency": palette.INK}


def over_time(figure: Figure, result: ServingResult) -> None:
    """Above: requests running and waiting. Below: tokens per second, and how full KV caches are."""
    above, below = figure.subplots(2, 1, sharex=True)
    line = result.timeline
    time = (np.arange(len(line.running)) + 0.5) * line.interval_s
    above.stackplot(time, line.running, line.waiting, colors=list(LOAD.values()), labels=list(LOAD), linewidth=0)
    above.set_ylabel("requests")
    above.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    above.margins(x=0)
    below.plot(time, line.tokens_per_s, color=palette.BLUE, linewidth=0.9)
    below.set_ylabel("output tokens/s")
    below.set_xlabel("simulated time (s)")
    below.set_ylim(bottom=0)
    share = below.twinx()
    share.plot(time, 100 * np.array(line.kv_share), color=palette.GREY, linewidth=0.9)
    share.set_ylabel("KV cache used (%, grey)")
    share.set_ylim(0, 100)
    share.spines["right"].set_visible(True)
    figure.subplots_adjust(left=0.13, right=0.87, bottom=0.13, top=0.93, hspace=0.16)


def waits(figure: Figure, result: ServingResult) -> None:
    """Share of the listed requests that waited at most so long."""
    axes = figure.subplots()
    columns = result.requests
    ttft, latency = np.array(columns.ttft_s), np.array(columns.latency_s)
    output, queue = np.array(columns.output_tokens), np.array(columns.queue_s)
    several = output > 1
    samples = {"queueing": queue, "TTFT": ttft, "latency": latency}
    if several.any():
        samples["TPOT"] = (latency - ttft)[several] / (output[several] - 1)
    share = np.linspace(0, 100, 200)
    floor = max(min(float(values[values > 0].min()) for values in samples.values() if (values > 0).any()), 1e-5)
    for name, values in samples.items():
        axes.plot(np.maximum(np.percentile(values, share), floor), share, color=METRICS[name], label=name)
    for name, limit in _limits(result).items():
        axes.axvline(limit, color=METRICS[name], linestyle=(0, (4, 2)), linewidth=0.8)
    axes.set_xscale("log")
    _seconds_on(axes)
    axes.set_ylim(0, 100)
    axes.grid(axis="both")
    axes.set_ylabel("share of requests (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4)
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.13, top=0.92)


def _limits(result: ServingResult) -> dict[str, float]:
    """The SLO's limits, by metric."""
    slo = (result.scenario.get("serving") or {}).get("slo") or {}
    names = {"TTFT": "ttft", "TPOT": "tpot", "latency": "latency"}
    return {name: parse(slo[key], "time") for name, key in names.items() if slo.get(key)}


def _seconds_on(axes: Axes) -> None:
    """Decades of the horizontal axis in words."""
    axes.xaxis.set_major_formatter(lambda value, _: format_seconds(value).replace(".00", ""))


def time_use(figure: Figure, result: ServingResult) -> None:
    """What the replicas' time went into, largest first."""
    axes = figure.subplots()
    parts = result.breakdown[:10]
    for row, part in enumerate(parts):
        colour = palette.FAINT if part.name == "idle" else palette.BLUE
        axes.barh(row, 100 * part.share, height=0.62, color=colour)
        axes.text(100 * part.share, row, f" {100 * part.share:.1f} %", va="center", fontsize=6.8)
    axes.set_yticks(range(len(parts)), [part.name for part in parts])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(0, 112 * max((part.share for part in parts), default=1.0))
    axes.set_xlabel("share of the replicas' time (%)")
    figure.subplots_adjust(left=0.31, right=0.97, bottom=0.4 / figure.get_figheight(), top=0.98)
