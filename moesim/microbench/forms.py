"""Forms: seconds of one operation from its sizes and a few constants. Each function's docstring is its equation.

``x`` maps a column's name to an array over rows, ``c`` a constant's name to its value; all SI. Constants are fitted as
logarithms, so none is zero or negative; a term that a machine does not have fits to nearly nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]
Constants = Mapping[str, float]


@dataclass(frozen=True)
class Constant:
    """A constant: its dimension (a key of ``units.UNITS``, or ``1``), where a fit starts, and its bounds."""

    name: str
    dimension: str
    start: float
    low: float
    high: float


@dataclass(frozen=True)
class Form:
    """An equation with its constants and the columns that it reads."""

    name: str
    columns: tuple[str, ...]
    constants: tuple[Constant, ...]
    seconds: Callable[[Columns, Constants], Floats]


def sharp_max(first: ArrayLike, second: ArrayLike, sharpness: float) -> Floats:
    """``(a^p + b^p)^(1/p)``: p = 1 one after the other, p -> infinity the larger of both."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    larger = np.maximum(np.maximum(a, b), 1e-30)
    return np.asarray(larger * ((a / larger) ** sharpness + (b / larger) ** sharpness) ** (1 / sharpness))


def _time(name: str, start: float = 1e-6) -> Constant:
    return Constant(name, "time", start, 1e-11, 1.0)


def _rate(name: str, start: float = 1e10) -> Constant:
    return Constant(name, "bandwidth", start, 1e5, 1e14)


def _flops(name: str, start: float = 1e12) -> Constant:
    return Constant(name, "compute_rate", start, 1e7, 1e16)


def _plain(name: str, start: float, low: float, high: float) -> Constant:
    return Constant(name, "1", start, low, high)


_SHARPNESS = _plain("sharpness", 2.0, 1.0, 12.0)


def _linear(x: Columns, c: Constants) -> Floats:
    """``t = latency + bytes / bandwidth``."""
    return c["latency"] + x["bytes"] / c["bandwidth"]


def _copy(x: Columns, c: Constants) -> Floats:
    """``t = latency + per_segment (segments - 1) + bytes / bandwidth + ramp bytes / (bytes + knee)``.

    The ramp is what a copy pays on top until the link is busy; it is all paid well above the knee.
    """
    ramp = c["ramp"] * x["bytes"] / (x["bytes"] + c["knee"])
    return c["latency"] + c["per_segment"] * (x["segments"] - 1) + x["bytes"] / c["bandwidth"] + ramp


def _stream(x: Columns, c: Constants) -> Floats:
    """``t = latency + (a^p + b^p)^(1/p)``, ``a = bytes / (threads one_thread)``, ``b = bytes / all_threads``."""
    own, shared = x["bytes"] / (x["threads"] * c["one_thread"]), x["bytes"] / c["all_threads"]
    return c["latency"] + sharp_max(own, shared, c["sharpness"])


def _cpu_expert(x: Columns, c: Constants) -> Floats:
    """``t = latency + (m^p + a^p)^(1/p)``: memory ``m = bytes / min(threads one_thread, all_threads)``, arithmetic
    ``a = (2 weights / unpack + padded_flops / rate) / threads``.

    ``unpack``: bytes of bf16 that a thread loads or widens weights to in a second, whatever the tokens;
    ``padded_flops`` counts tokens in the kernel's steps.
    """
    bandwidth = 1 / sharp_max(1 / (x["threads"] * c["one_thread"]), np.full_like(x["bytes"], 1 / c["all_threads"]), 8.0)
    arithmetic = (2 * x["weights"] / c["unpack"] + x["padded_flops"] / c["rate"]) / x["threads"]
    return c["latency"] + sharp_max(x["bytes"] / bandwidth, arithmetic, c["sharpness"])


def _requests(x: Columns, c: Constants) -> Floats:
    """Time between completions with ``depth`` requests in flight:
    ``t = (l^p + s^p)^(1/p)``, ``l = (latency + bytes / one_stream) / depth``, ``s = 1 / iops + bytes / bandwidth``.

    One request alone takes its latency; many are limited by what the device serves. (Asymptotic bounds of a closed
    queue, Little's law.)
    """
    alone = (c["latency"] + x["bytes"] / c["one_stream"]) / x["depth"]
    return sharp_max(alone, 1 / c["iops"] + x["bytes"] / c["bandwidth"], c["sharpness"])


def _gpu_expert(x: Columns, c: Constants) -> Floats:
    """``t = launch + (m^p + a^p)^(1/p)``, ``m = bytes / bandwidth``, ``a = padded_flops / rate``: tokens in tiles."""
    return c["launch"] + sharp_max(x["bytes"] / c["bandwidth"], x["padded_flops"] / c["rate"], c["sharpness"])


def _grouped(x: Columns, c: Constants) -> Floats:
    """As ``gpu_expert`` over all experts, and ``per_launch (launches - 1) + per_expert experts``."""
    overhead = c["launch"] + c["per_launch"] * (x["launches"] - 1) + c["per_expert"] * x["experts"]
    return overhead + sharp_max(x["bytes"] / c["bandwidth"], x["padded_flops"] / c["rate"], c["sharpness"])


def _cached(x: Columns, c: Constants) -> Floats:
    """``t = latency + bytes (h / cache_bandwidth + (1 - h) / bandwidth)``, ``h = 1 / (1 + (bytes / cache)^4)``.

    ``cold`` rows (blocks at random places of a large set) have h = 0.
    """
    hit = (1 - x["cold"]) / (1 + (x["bytes"] / c["cache"]) ** 4)
    return c["latency"] + x["bytes"] * (hit / c["cache_bandwidth"] + (1 - hit) / c["bandwidth"])


def _queue(x: Columns, c: Constants) -> Floats:
    """``t = latency + (bytes + waits queued + shares min(bytes, queued)) / bandwidth``.

    waits = 1, shares = 0: first come, first served; waits = 0, shares = 1: both get half of the link.
    """
    behind = c["waits"] * x["queued"] + c["shares"] * np.minimum(x["bytes"], x["queued"])
    return c["latency"] + (x["bytes"] + behind) / c["bandwidth"]


def _copy_beside(x: Columns, c: Constants) -> Floats:
    """``t = (latency + bytes / bandwidth) hbm^[hbm] gemm^[gemm] tiny^[tiny] both^[both]``: a slow-down for each
    companion of the copy; with several at once, their product.
    """
    alone = c["latency"] + x["bytes"] / c["bandwidth"]
    return alone * c["hbm"] ** x["hbm"] * c["gemm"] ** x["gemm"] * c["tiny"] ** x["tiny"] * c["both"] ** x["both"]


def _kernel_beside(x: Columns, c: Constants) -> Floats:
    """``t = alone h2d^[h2d] d2h^[d2h]``."""
    return c["alone"] * c["h2d"] ** x["h2d"] * c["d2h"] ** x["d2h"]


def _nodes(x: Columns, c: Constants) -> Floats:
    """``t = first + per_node (nodes - 1)``."""
    return c["first"] + c["per_node"] * (x["nodes"] - 1)


def _turnaround(x: Columns, c: Constants) -> Floats:
    """``t = latency + per_token tokens + per_copy [copies] + bytes / bandwidth``."""
    return c["latency"] + c["per_token"] * x["tokens"] + c["per_copy"] * x["copies"] + x["bytes"] / c["bandwidth"]


def _tokens(x: Columns, c: Constants) -> Floats:
    """``t = (floor^p + (tokens per_token)^p)^(1/p)``: flat until the GPU is full."""
    return sharp_max(np.full_like(x["tokens"], c["floor"]), x["tokens"] * c["per_token"], c["sharpness"])


def _pipeline(x: Columns, c: Constants) -> Floats:
    """One buffer: ``bytes / read + bytes / copy + chunks per_chunk``; several: the slower of both, and the first chunk
    through the faster one. All plus ``latency``.
    """
    read, copy = x["bytes"] / c["read"], x["bytes"] / c["copy"]
    overlapped = np.maximum(read, copy) + np.minimum(read, copy) * x["chunk"] / x["bytes"]
    chunks = x["bytes"] / x["chunk"] * c["per_chunk"]
    return c["latency"] + chunks + np.where(x["depth"] > 1, overlapped, read + copy)


_SLOW = (1.0, 0.8, 20.0)
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("linear", ("bytes",), (_time("latency"), _rate("bandwidth")), _linear),
        Form(
            "copy",
            ("bytes", "segments"),
            (
                _time("latency", 5e-6),
                _time("per_segment"),
                _rate("bandwidth"),
                _time("ramp"),
                Constant("knee", "bytes", 1e5, 1e3, 1e7),
            ),
            _copy,
        ),
        Form(
            "stream",
            ("bytes", "threads"),
            (_time("latency"), _rate("one_thread"), _rate("all_threads", 1e11), _SHARPNESS),
            _stream,
        ),
        Form(
            "cpu_expert",
            ("bytes", "weights", "padded_flops", "threads"),
            (
                _time("latency"),
                _rate("one_thread"),
                _rate("all_threads", 5e10),
                _rate("unpack", 2e10),
                _flops("rate", 1e11),
                _SHARPNESS,
            ),
            _cpu_expert,
        ),
        Form(
            "requests",
            ("bytes", "depth"),
            (
                _time("latency", 1e-4),
                _rate("one_stream", 1e9),
                Constant("iops", "io_rate", 1e5, 10.0, 1e9),
                _rate("bandwidth", 1e9),
                _SHARPNESS,
            ),
            _requests,
        ),
        Form(
            "gpu_expert",
            ("bytes", "padded_flops"),
            (_time("launch", 5e-6), _rate("bandwidth", 1e12), _flops("rate", 1e14), _SHARPNESS),
            _gpu_expert,
        ),
        Form(
            "grouped",
            ("bytes", "padded_flops", "launches", "experts"),
            (
                _time("launch", 5e-6),
                _time("per_launch", 3e-6),
                _time("per_expert", 1e-7),
                _rate("bandwidth", 1e12),
                _flops("rate", 1e14),
                _SHARPNESS,
            ),
            _grouped,
        ),
        Form(
            "cached",
            ("bytes", "cold"),
            (
                _time("latency", 3e-6),
                _rate("bandwidth", 1e12),
                _rate("cache_bandwidth", 5e12),
                Constant("cache", "bytes", 3e7, 1e6, 1e9),
            ),
            _cached,
        ),
        Form(
            "queue",
            ("bytes", "queued"),
            (
                _time("latency", 1e-5),
                _rate("bandwidth"),
                _plain("waits", 0.5, 1e-4, 1.5),
                _plain("shares", 0.5, 1e-4, 2.0),
            ),
            _queue,
        ),
        Form(
            "copy_beside",
            ("bytes", "hbm", "gemm", "tiny", "both"),
            (
                _time("latency", 5e-6),
                _rate("bandwidth"),
                *(_plain(name, *_SLOW) for name in ("hbm", "gemm", "tiny", "both")),
            ),
            _copy_beside,
        ),
        Form(
            "kernel_beside",
            ("h2d", "d2h"),
            (_time("alone", 1e-4), _plain("h2d", *_SLOW), _plain("d2h", *_SLOW)),
            _kernel_beside,
        ),
        Form("nodes", ("nodes",), (_time("first", 3e-6), _time("per_node")), _nodes),
        Form(
            "turnaround",
            ("tokens", "copies", "bytes"),
            (_time("latency", 2e-5), _time("per_token", 1e-8), _time("per_copy", 5e-6), _rate("bandwidth")),
            _turnaround,
        ),
        Form("tokens", ("tokens",), (_time("floor", 3e-6), _time("per_token", 1e-8), _SHARPNESS), _tokens),
        Form(
            "pipeline",
            ("bytes", "chunk", "depth"),
            (_time("latency", 1e-4), _time("per_chunk", 1e-5), _rate("read", 3e9), _rate("copy", 2e10)),
            _pipeline,
        ),
    )
}
