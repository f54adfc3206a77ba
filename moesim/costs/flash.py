"""Reads from a drive into host memory, by path, read size and requests in flight.

Whole reads (an engine's one large read per expert, which the kernel splits and keeps in flight):
``t = latency + bytes / (e B)``.

Direct reads of size s, ``N = ceil(bytes / s)`` of them, q in flight over all lanes (reader threads):
``t = max(ceil(N / q) a, a + (N - 1) max(1 / iops, s / (e B)))`` with ``a = latency + s / (e B)`` of one alone:
either the requests in flight or the drive is the limit (asymptotic bounds of a closed queue).

Page cache, reads through the kernel's: what is cached is copied, ``bytes / (lanes copy_rate)``. What is not is read
ahead in windows of 128 KiB, two in flight for each lane, while the window before is copied:
``t = max(read, copy) + min(read, copy) / windows``.

Mapped (mmap): what is cached costs a touch of each 4 KiB page; what is not faults, one window at a time for each lane:
a direct read of 128 KiB windows with one in flight (4 KiB with ``random``: MADV_RANDOM), and the touches.

e B: the card's bandwidth times its efficiency. Source of the windows: Linux, ``read_ahead_kb`` 128, and
``mm/filemap.c``: a page of the window ahead is marked, so that the next is asked for while this one is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs.fitted import Floats, Terms
from moesim.costs.part import Basis, Constant, Part, card_constant
from moesim.costs.transfer import thread_copy
from moesim.hardware import CpuSpec, StorageSpec

Path = Literal["whole", "direct", "page_cache", "mmap", "mmap_random"]
PAGE = 4096
WINDOW = 128 * 1024
#: Requests that a drive works on together where its card has no figure of small reads. Assumed: one queue's worth.
QUEUE = 32
#: The first touch of a mapped page that is in memory: 0.17 us on a virtual machine. Assumed of others.
TOUCH_S = 0.17e-6


@dataclass(frozen=True)
class FlashReads:
    """How bytes come from a drive.

    Attributes:
        read_bytes, depth: of direct reads: their size, and how many each lane keeps in flight.
        lanes: threads that read.
        cached: the share of the bytes that the page cache holds.
    """

    path: Path = "whole"
    read_bytes: float = 2**20
    depth: int = 4
    lanes: int = 1
    cached: float = 0.0


WHOLE = FlashReads()


def flash_read(num_bytes: ArrayLike, drive: StorageSpec, cpu: CpuSpec | None = None, way: FlashReads = WHOLE) -> Part:
    """Seconds of reads (see the module). ``num_bytes``: of each. [...]"""
    size = np.asarray(num_bytes, dtype=np.float64)
    constants = [
        card_constant("storage.read_bandwidth", drive.read_bandwidth, "B/s"),
        card_constant("storage.read_efficiency", drive.read_efficiency, "1"),
        card_constant("storage.read_latency", drive.read_latency, "s"),
    ]
    match way.path:
        case "whole":
            terms: Terms = {
                "latency": np.full(size.shape, drive.read_latency.value),
                "bandwidth": size / _rate(drive),
            }
        case "direct":
            terms = _requests(size, way.read_bytes, way.depth * way.lanes, drive)
            constants.append(_iops(drive))
        case "page_cache":
            terms = _read_ahead(size, drive, cpu, way)
            constants += [_iops(drive), thread_copy(cpu)]
        case "mmap" | "mmap_random":
            window = WINDOW if way.path == "mmap" else PAGE
            terms = _requests(size * (1 - way.cached), window, way.lanes, drive)
            terms["touching pages"] = size / PAGE * TOUCH_S / way.lanes
            constants += [_iops(drive), Constant("mmap.touch", TOUCH_S, "s", "moesim.costs.flash", "assumed")]
    terms = {name: np.where(size > 0, seconds, 0.0) for name, seconds in terms.items()}
    basis = Basis("flash read", way.path, "card", tuple(constants))
    return Part("flash", terms, basis, np.zeros(size.shape, dtype=bool))


def _rate(drive: StorageSpec) -> float:
    return drive.read_bandwidth.value * drive.read_efficiency.value


def _iops(drive: StorageSpec) -> Constant:
    """Small reads per second at most."""
    if drive.iops is not None:
        return card_constant("storage.iops", drive.iops, "1/s")
    told = f"{QUEUE} reads in the time of one (moesim.costs.flash)"
    return Constant("storage.iops", QUEUE / drive.read_latency.value, "1/s", told, "assumed")


def _requests(size: Floats, read_bytes: float, in_flight: float, drive: StorageSpec) -> Terms:
    """``latency``: waiting for requests alone; ``bandwidth``, ``requests``: what the drive needs for all of them."""
    each = np.minimum(read_bytes, np.maximum(size, 1.0))
    count = np.ceil(size / each)
    latency, streaming = drive.read_latency.value, each / _rate(drive)
    service = np.maximum(1 / _iops(drive).value, streaming)
    rounds = np.ceil(count / in_flight)
    waiting = rounds * (latency + streaming)
    serving = latency + streaming + np.maximum(count - 1, 0) * service
    bound = waiting > serving
    terms = {
        "latency": np.where(bound, rounds * latency, latency),
        "bandwidth": np.where(bound, rounds * streaming, size / _rate(drive)),
        "requests": np.where(bound, 0.0, np.maximum(serving - latency - size / _rate(drive), 0.0)),
    }
    return {name: np.where(size > 0, seconds, 0.0) for name, seconds in terms.items()}


def _read_ahead(size: Floats, drive: StorageSpec, cpu: CpuSpec | None, way: FlashReads) -> Terms:
    """Through the page cache."""
    copying = size / (way.lanes * thread_copy(cpu).value)
    missing = size * (1 - way.cached)
    reading = _requests(missing, WINDOW, 2 * way.lanes, drive)
    read: NDArray[np.float64] = sum(reading.values(), start=np.zeros(size.shape))
    windows = np.maximum(np.ceil(missing / WINDOW), 1)
    exposed = np.maximum(copying - read, 0.0) + np.minimum(read, copying) / windows
    return {**reading, "copying": np.where(missing > 0, exposed, copying)}
