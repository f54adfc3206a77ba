"""Copies between host memory and a GPU.

``t = latency + b/B + (c - 1) max(issue, gap + b/B) + staging``, c copies of b bytes each:

- ``latency``: from asking for the first copy to its first byte; B what one large copy from pinned memory reaches.
- The host issues a copy every ``issue``; the copy engine pauses for ``gap`` between two. Large copies are bound by the
  engine, small ones by the host: a two-stage pipeline.
- Pageable memory: the driver copies each part through its own pinned buffer, a thread's copy and the engine's taking
  turns: ``staging = c b / copy_rate``; no copy is issued before the last has ended. A card's own measured pageable
  bandwidth replaces the sum of both.
- Registered memory: pinned for this transfer only, ``staging = c b / register_rate``. Registered once for all, it is
  pinned memory.
- With traffic the other way, B is the card's bandwidth both ways.

Beside a kernel that streams GPU memory, the copy takes its bandwidth from it: the kernel is
``1 / (1 - B / (e_b B_gpu))`` times as long (at most 3 % for PCI Express), which the engines leave out.

Assumes one transfer at a time on a link and direction: what waits is the engine's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs.fitted import Floats, Terms
from moesim.costs.part import Basis, Constant, Part, card_constant
from moesim.hardware import CpuSpec, GpuSpec, LinkSpec

HostMemory = Literal["pinned", "pageable", "registered"]
#: A copy engine's pause between two queued copies: fetching the next descriptor over the bus. Assumed.
GAP_S = 1e-6
#: A thread's copy within host memory, bytes per second: half of what it can read, since it writes as much. Assumed.
THREAD_COPY_BYTES_PER_S = 7e9
#: Page-locking, bytes per second: 33.38 GiB took 7.957 s on a machine with two RTX 3090 (ikawrakow/ik_llama.cpp, pull
#: request 1517); 101.75 GiB took 60 s on two Xeon E5-2696 v4, 1.8 GB/s (ggml-org/llama.cpp, pull request 28223).
#: Assumed of other machines.
REGISTER_BYTES_PER_S = 4.5e9


@dataclass(frozen=True)
class HostCopies:
    """How bytes cross the link between host and GPU.

    Attributes:
        memory: what kind of host memory they lie in.
        copies: how many pieces they go in, one after the other: an expert's matrices, say.
        both_ways: whether the other direction is as busy.
    """

    memory: HostMemory = "pinned"
    copies: int = 1
    both_ways: bool = False


PINNED = HostCopies()


def transfer_s(num_bytes: ArrayLike, latency_s: float, bandwidth_bytes_per_s: float) -> NDArray[np.float64]:
    """``latency + bytes / bandwidth``: seconds that one pinned copy holds its link."""
    return latency_s + np.asarray(num_bytes, dtype=np.float64) / bandwidth_bytes_per_s


def host_copy(num_bytes: ArrayLike, link: LinkSpec, cpu: CpuSpec | None = None, way: HostCopies = PINNED) -> Part:
    """Seconds of transfers (see the module).

    Args:
        num_bytes: of each transfer, all of its copies together. [...]
    """
    size = np.asarray(num_bytes, dtype=np.float64)
    bandwidth, latency = _bandwidth(link, way), card_constant("link.latency", link.latency, "s")
    streaming = size / bandwidth.value
    terms: Terms = {"latency": np.full(size.shape, latency.value), "bandwidth": streaming}
    constants = [bandwidth, latency]
    if way.copies > 1:
        waits, numbers = _further(link, way, streaming / way.copies)
        terms["further copies"] = np.broadcast_to(waits, size.shape)
        constants += numbers
    if way.memory == "pageable" and link.pageable_bandwidth is None:
        constants.append(thread := thread_copy(cpu))
        terms["staging"] = size / thread.value
    if way.memory == "registered":
        constants.append(register := _register_rate(link))
        terms["registering"] = size / register.value
    outside = np.zeros(size.shape, dtype=bool)
    return Part("PCIe", terms, Basis("transfer", way.memory, "card", tuple(constants)), outside)


def _further(link: LinkSpec, way: HostCopies, piece_s: Floats) -> tuple[Floats, list[Constant]]:
    """What copies after the first add to their bytes, and on which constants that rests."""
    more = way.copies - 1
    if way.memory == "pageable":
        return np.asarray(more * link.latency.value), []
    gap, issue = gap_of(link), issue_of(link)
    return more * (gap.value + np.maximum(issue.value - gap.value - piece_s, 0.0)), [gap, issue]


def kernel_slowdown(link: LinkSpec, gpu: GpuSpec, way: HostCopies = PINNED) -> float:
    """How many times as long a kernel takes that streams GPU memory while the link writes into it."""
    share = _bandwidth(link, way).value * (2 if way.both_ways else 1)
    return 1 / (1 - min(share / (gpu.memory_bandwidth.value * gpu.memory_efficiency.value), 0.99))


def issue_of(link: LinkSpec) -> Constant:
    """Between two copies that the host asks for; the latency of one where the card doesn't say."""
    if link.issue is not None:
        return card_constant("link.issue", link.issue, "s")
    source = f"as the latency of a copy: {link.latency.source}"
    return Constant("link.issue", link.latency.value, "s", source, link.latency.kind)


def gap_of(link: LinkSpec) -> Constant:
    """Between two queued copies."""
    if link.gap is not None:
        return card_constant("link.gap", link.gap, "s")
    return Constant("link.gap", GAP_S, "s", "moesim.costs.transfer", "assumed")


def thread_copy(cpu: CpuSpec | None) -> Constant:
    """What one thread copies within host memory, per second."""
    if cpu is not None and cpu.thread_copy is not None:
        return card_constant("cpu.thread_copy", cpu.thread_copy, "B/s")
    return Constant("cpu.thread_copy", THREAD_COPY_BYTES_PER_S, "B/s", "moesim.costs.transfer", "assumed")


def _bandwidth(link: LinkSpec, way: HostCopies) -> Constant:
    if way.memory == "pageable" and link.pageable_bandwidth is not None:
        return card_constant("link.pageable_bandwidth", link.pageable_bandwidth, "B/s")
    if way.both_ways and link.bandwidth_both_ways is not None:
        return card_constant("link.bandwidth_both_ways", link.bandwidth_both_ways, "B/s")
    if way.both_ways:
        told = "half of it: the card doesn't rate both ways at once"
        return Constant("link.bandwidth_both_ways", link.bandwidth.value / 2, "B/s", told, "assumed")
    return card_constant("link.bandwidth", link.bandwidth, "B/s")


def _register_rate(link: LinkSpec) -> Constant:
    if link.register_bandwidth is not None:
        return card_constant("link.register_bandwidth", link.register_bandwidth, "B/s")
    told = "moesim.costs.transfer: page-locking of 33.38 GiB on another machine"
    return Constant("link.register_bandwidth", REGISTER_BYTES_PER_S, "B/s", told, "assumed")
