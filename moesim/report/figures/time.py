"""Where the time went, and how long each token took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moesim.report.figures import palette
from moesim.results import Result
from moesim.results.result import StepColumns, TimeShare
from moesim.units import format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

#: More decode steps than this are drawn as bins: the median, and the range of each bin.
MAX_DOTS, BINS = 600, 240


def breakdown(figure: Figure, result: Result) -> None:
    """Stacked shares of total, prefill and decode time: what the GPU did, then what it waited for."""
    axes = figure.subplots()
    phases = {"total": result.breakdown.total, "prefill": result.breakdown.prefill, "decode": result.breakdown.decode}
    phases = {name: parts for name, parts in phases.items() if parts}
    for row, parts in enumerate(phases.values()):
        _stack(axes, row, parts)
    names = [f"{name}\n{format_seconds(sum(part.seconds for part in parts))}" for name, parts in phases.items()]
    axes.set_yticks(range(len(phases)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(phases) - 0.5, -0.62)
    axes.set_xlabel("share of the simulated time (%)")
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.14, right=0.965, bottom=0.42 / height, top=1 - 0.03 / height)


def _stack(axes: Axes, row: int, parts: Sequence[TimeShare]) -> None:
    """One bar; a rule between computing and waiting, and the share of each above."""
    left = 0.0
    for part in sorted(parts, key=lambda part: palette.is_stall(part.name)):
        width = 100 * part.share
        axes.barh(row, width, left=left, height=0.5, color=palette.of_time(part.name), edgecolor="white", linewidth=0.4)
        left += width
    busy = 100 * sum(part.share for part in parts if not palette.is_stall(part.name))
    axes.plot([busy, busy], [row - 0.32, row + 0.32], color=palette.INK, linewidth=1.2)
    above = row - 0.33
    axes.text(0, above, f"GPU works {busy:.0f} %", va="bottom", fontsize=6.8)
    axes.text(100, above, f"waits {100 - busy:.0f} %", va="bottom", ha="right", fontsize=6.8)


def steps(figure: Figure, columns: StepColumns) -> None:
    """How long each step took, when it ran: a dot (or a bin) for decode, a line as long as itself for prefill."""
    axes = figure.subplots()
    start, duration, is_decode = _columns(columns)
    _decode_steps(axes, start[is_decode], duration[is_decode])
    if not is_decode.all():
        prefill = ~is_decode
        axes.hlines(
            duration[prefill],
            start[prefill],
            start[prefill] + duration[prefill],
            color=palette.PHASES["prefill"],
            linewidth=2,
            label="prefill step",
        )
    axes.set_xlim(0, max(columns.end_s))
    axes.set_yscale("log")
    low, high = _positive_range(duration)
    axes.set_ylim(low / 1.4, high * 1.4)
    _seconds_on(axes.yaxis, low, high)
    axes.grid(axis="y")
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel("duration of a step")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3)
    figure.subplots_adjust(left=0.155, right=0.975, bottom=0.17, top=0.91)


def _decode_steps(axes: Axes, start: Floats, duration: Floats) -> None:
    colour = palette.PHASES["decode"]
    if len(start) <= MAX_DOTS:
        if len(start):
            axes.plot(start, duration, ".", color=colour, markersize=2.6, label="decode step")
        return
    groups = np.array_split(np.arange(len(start)), BINS)
    middle = [float(start[group].mean()) for group in groups]
    low, median, high = (_each(groups, duration, summary) for summary in (np.min, np.median, np.max))
    axes.fill_between(middle, low, high, color=colour, alpha=0.25, linewidth=0, label="range of decode steps")
    axes.plot(middle, median, color=colour, linewidth=0.9, label="median")


def _each(groups: Sequence[NDArray[np.int64]], values: Floats, summary: Callable[[Floats], np.floating]) -> list[float]:
    return [float(summary(values[group])) for group in groups]


def latency_distribution(figure: Figure, columns: StepColumns) -> None:
    """Share of decode steps that take at most so long, beside the same without waiting."""
    axes = figure.subplots()
    _, duration, is_decode = _columns(columns)
    stall = np.array(columns.stall_s)
    whole, work = duration[is_decode], (duration - stall)[is_decode]
    share = np.linspace(0, 100, min(len(whole), 200) + 1)
    axes.plot(np.percentile(work, share), share, color=palette.SKY, linestyle=(0, (4, 2)), label="GPU work alone")
    axes.plot(np.percentile(whole, share), share, color=palette.BLUE, label="whole step")
    for percent in (50, 99):
        value = float(np.percentile(whole, percent))
        axes.plot(value, percent, "o", color=palette.BLUE, markersize=3.5)
        below = (6, -9) if percent == 99 else (6, -3)
        axes.annotate(f"p{percent} {format_seconds(value)}", (value, percent), below, textcoords="offset points")
    axes.set_xscale("log")
    low, high = _positive_range(np.concatenate([work, whole]))
    axes.set_xlim(low / 1.1, 1.1 * high * (high / low) ** 0.18)
    _seconds_on(axes.xaxis, low, high)
    axes.set_ylim(0, 101)
    axes.grid()
    axes.set_xlabel("duration of a decode step")
    axes.set_ylabel("share of decode steps (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=2)
    figure.subplots_adjust(left=0.125, right=0.975, bottom=0.17, top=0.91)


def _columns(columns: StepColumns) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    start = np.array(columns.start_s)
    return start, np.array(columns.end_s) - start, np.array(columns.phase) == "decode"


def _positive_range(seconds: Floats) -> tuple[float, float]:
    """What a logarithmic axis has to span."""
    positive = seconds[seconds > 0]
    return (float(positive.min()), float(positive.max())) if len(positive) else (1e-3, 1.0)


def _seconds_on(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis with units, at 1, 2, 5 in a narrow range and at powers of ten in a wide one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    subs = (1.0,) if high / low > 300 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda seconds, _: _tick(seconds)))
    axis.set_minor_formatter(NullFormatter())


def _tick(seconds: float) -> str:
    """``0.02`` -> ``"20 ms"``: as :func:`format_seconds`, without zeros at the end."""
    number, _, unit = format_seconds(seconds).partition(" ")
    return f"{float(number):g} {unit}"
