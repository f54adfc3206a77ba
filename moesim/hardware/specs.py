"""What a part can do: one class per family of cards. Every number is a :class:`Sourced` SI value.

Bandwidths are bytes per second one way. Rates of arithmetic count a multiply-add as two operations and are dense
(no structured sparsity). A field that is None is unknown, not zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from moesim.errors import nearest
from moesim.hardware.sourced import Count, Fraction, Sourced
from moesim.units import (
    Bytes,
    BytesPerSecond,
    Hertz,
    IoPerSecond,
    OperationsPerSecond,
    Seconds,
    Usd,
    UsdPerSecond,
    Watts,
)

PositiveBytes = Annotated[Bytes, Field(gt=0)]
Bandwidth = Annotated[BytesPerSecond, Field(gt=0)]
ComputeRate = Annotated[OperationsPerSecond, Field(gt=0)]
#: The types of operands that arithmetic is rated for.
ARITHMETIC = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8", "int4")
#: The types that any operand can be widened to, the cheapest first.
WIDE = ("bf16", "fp16", "fp32")


def _known_arithmetic(name: str) -> str:
    if name not in ARITHMETIC:
        raise ValueError(f"unknown type of arithmetic | hint: {nearest(name, ARITHMETIC)}")
    return name


Arithmetic = Annotated[str, AfterValidator(_known_arithmetic)]


class Spec(BaseModel):
    """What every card has: ``name`` (the file's), ``title`` (what people call the part), ``notes`` (caveats)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    notes: list[str] = []


class Price(BaseModel):
    """What a part costs: bought new at its maker's price, or rented. Rents are USD per second, the range seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    msrp: Sourced[Usd] | None = None
    cloud_low: Sourced[UsdPerSecond] | None = None
    cloud_high: Sourced[UsdPerSecond] | None = None


class Processor(Spec):
    """What GPUs and CPUs have in common.

    ``compute``: peak by type of operands (``bf16``, ``fp8``, ...); ``compute_efficiency`` and ``memory_efficiency``
    are the shares of the peaks that large matrix products and large streaming reads reach.
    """

    memory_bandwidth: Sourced[Bandwidth]
    memory_efficiency: Sourced[Fraction]
    compute: dict[Arithmetic, Sourced[ComputeRate]]
    compute_efficiency: Sourced[Fraction]
    tdp: Sourced[Watts] | None = None
    price: Price = Price()

    @field_validator("compute")
    @classmethod
    def _has_a_wide_type(cls, compute: dict[str, Sourced[float]]) -> dict[str, Sourced[float]]:
        if not any(arithmetic in compute for arithmetic in WIDE):
            raise ValueError(f"must rate one of {', '.join(WIDE)}")
        return compute


class GpuSpec(Processor):
    """A GPU, or the GPU of a chip whose memory CPU and GPU share (``unified_memory``).

    - ``memory_bandwidth``: of the memory that it computes from.
    - ``compute``: dense, accumulating in FP32 (INT32).
    - ``kernel_launch``: from the end of one kernel to the start of the next that depends on it, in a stream.
    - ``link``: the name of the link card for its own connection to the host; ``nvlink`` that of a network card.
    """

    memory: Sourced[PositiveBytes]
    kernel_launch: Sourced[Seconds]
    link: str
    nvlink: str | None = None
    unified_memory: bool = False
    compute_capability: str | None = None
    sm_count: Sourced[Count] | None = None
    boost_clock: Sourced[Hertz] | None = None
    l2: Sourced[PositiveBytes] | None = None


class CpuSpec(Processor):
    """A CPU (all sockets that the card names) with its DRAM; ``compute`` is over all cores.

    ``thread_copy``: what one thread copies within DRAM.
    """

    cores: Sourced[Count]
    thread_copy: Sourced[Bandwidth] | None = None


class LinkSpec(Spec):
    """The way between host memory and GPU memory.

    ``bandwidth_raw`` is the signalling rate less line coding; ``bandwidth`` what one large copy from pinned memory
    reaches one way, ``bandwidth_both_ways`` the same while the other direction runs too; ``latency`` is of one copy
    alone. Of several copies, ``issue`` is how often the host can ask for one, and ``gap`` the copy engine's pause
    between two. ``pageable_bandwidth``: from memory that is not pinned; ``register_bandwidth``: of pinning it.
    """

    bandwidth_raw: Sourced[Bandwidth]
    bandwidth: Sourced[Bandwidth]
    bandwidth_both_ways: Sourced[Bandwidth] | None = None
    latency: Sourced[Seconds]
    issue: Sourced[Seconds] | None = None
    gap: Sourced[Seconds] | None = None
    pageable_bandwidth: Sourced[Bandwidth] | None = None
    register_bandwidth: Sourced[Bandwidth] | None = None


class StorageSpec(Spec):
    """A drive. ``read_bandwidth`` is its sequential peak, ``read_efficiency`` the share that expert-sized reads
    (megabytes, a few in flight) reach, ``read_latency`` the time of a small read alone, ``iops`` its most 4 KiB reads.
    """

    read_bandwidth: Sourced[Bandwidth]
    read_efficiency: Sourced[Fraction]
    read_latency: Sourced[Seconds]
    iops: Sourced[IoPerSecond] | None = None
    price: Price = Price()


class NetworkSpec(Spec):
    """A way between GPUs, per GPU: NVLink inside a node, InfiniBand and the like between nodes.

    ``bandwidth_raw`` is the line rate one way, ``bandwidth`` what point-to-point copies reach; the bus bandwidths
    are those of nccl-tests (all-to-all: (n-1)/n, all-reduce: 2(n-1)/n of the bytes, per second); ``latency`` is of
    one small message, ``alltoall_latency`` of a whole small all-to-all.
    """

    bandwidth_raw: Sourced[Bandwidth]
    bandwidth: Sourced[Bandwidth]
    latency: Sourced[Seconds]
    alltoall_bandwidth: Sourced[Bandwidth] | None = None
    allreduce_bandwidth: Sourced[Bandwidth] | None = None
    alltoall_latency: Sourced[Seconds] | None = None
    allreduce_latency: Sourced[Seconds] | None = None


class InsideSpec(BaseModel):
    """How the GPUs of a node reach each other, over links of one network card.

    - ``switch``: each has a port of a switch between all (NVSwitch).
    - ``mesh``: each pair has a link of its own, an equal part of the GPU's bandwidth.
    - ``pairs``: GPUs 0 and 1, 2 and 3, ... have a bridge; all else goes over PCI Express.
    - ``pcie``: over PCI Express alone. Without ``peer`` access copies pass through host memory.
    - ``links``: the ``links`` given, each ``"gpu0 - gpu1"`` or ``"gpu0 - switch x 2"`` (several side by side); names
      that begin with ``gpu`` count GPUs, all others are switches. With ``nodes: 1`` this is any graph at all.

    ``pcie``: the network card of a GPU's way over PCI Express; ``gpus_per_switch``: GPUs that share a PCI Express
    switch and its way to the host.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["switch", "mesh", "pairs", "pcie", "links"]
    network: str
    pcie: str | None = None
    peer: bool = True
    gpus_per_switch: Count = 1
    links: list[str] = []


class BetweenSpec(BaseModel):
    """How nodes reach each other.

    ``rails``: NIC a of every node hangs on leaf switches of rail a; what is meant for another GPU of the far node is
    handed on inside it. Without rails all NICs of a node share a leaf. Leaves of ``nodes_per_leaf`` nodes are joined by
    a spine with ``oversubscription`` times less bandwidth up than down; its many switches count as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    gpus_per_nic: Count = 1
    rails: bool = True
    nodes_per_leaf: Count = 32
    oversubscription: Annotated[float, Field(ge=1)] = 1.0


class ClusterSpec(Spec):
    """Machines joined by a network: what ``moesim.hardware.topology`` turns into a graph."""

    node: str
    nodes: Count
    gpus_per_node: Count | None = None
    inside: InsideSpec
    between: BetweenSpec | None = None


class NodeSpec(Spec):
    """A ready machine: the names of its parts, and how much host memory it has (of a unified memory: all of it)."""

    gpu: str
    cpu: str
    link: str
    storage: str | None = None
    host_memory: Sourced[PositiveBytes]
    gpu_count: Count = 1
    price: Price = Price()
