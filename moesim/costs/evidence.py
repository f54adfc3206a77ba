"""Which constants a time rests on, and how well each of them is known.

A simulated second that waits for PCIe rests on the link's bandwidth; whoever reads the result should see whether that
bandwidth was measured or assumed. Each time is charged to one *term*, and a term is as good as its weakest constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moesim.costs.devices import cpu_arithmetic
from moesim.hardware import Node, Sourced
from moesim.hardware.sourced import Kind, weakest

#: The unit of a share of a peak.
SHARE = "1"


@dataclass(frozen=True)
class Constant:
    """A card's number: its dotted name, its value and SI unit, where it comes from and how well it is known."""

    name: str
    value: float
    unit: str
    source: str
    kind: Kind


@dataclass(frozen=True)
class Term:
    """A part of the simulated time and the constants that it is computed from."""

    name: str
    constants: tuple[Constant, ...]

    @property
    def kind(self) -> Kind:
        """The kind of its weakest constant."""
        return weakest(constant.kind for constant in self.constants)


def terms(node: Node, arithmetic: str) -> Mapping[str, Term]:
    """The terms of an offloading node's time, by name.

    Args:
        arithmetic: the precision in which the GPU computes the experts, a key of ``GpuSpec.compute``.
    """
    return {term.name: term for term in _terms(node, arithmetic)}


def _terms(node: Node, arithmetic: str) -> Iterator[Term]:
    gpu, cpu, link = node.gpu, node.cpu, node.link
    yield Term(
        "GPU compute",
        (
            _constant(f"gpu.compute.{arithmetic}", gpu.compute[arithmetic], "FLOP/s"),
            _constant("gpu.compute_efficiency", gpu.compute_efficiency, SHARE),
        ),
    )
    yield Term(
        "GPU memory",
        (
            _constant("gpu.memory_bandwidth", gpu.memory_bandwidth, "B/s"),
            _constant("gpu.memory_efficiency", gpu.memory_efficiency, SHARE),
        ),
    )
    yield Term("kernel launch", (_constant("gpu.kernel_launch", gpu.kernel_launch, "s"),))
    yield Term("PCIe bandwidth", (_constant("link.bandwidth", link.bandwidth, "B/s"),))
    yield Term("PCIe latency", (_constant("link.latency", link.latency, "s"),))
    if node.storage is not None:
        read = _constant("storage.read_bandwidth", node.storage.read_bandwidth, "B/s")
        yield Term("flash bandwidth", (read, _constant("storage.read_efficiency", node.storage.read_efficiency, SHARE)))
        yield Term("flash latency", (_constant("storage.read_latency", node.storage.read_latency, "s"),))
    yield Term(
        "CPU",
        (
            _constant("cpu.memory_bandwidth", cpu.memory_bandwidth, "B/s"),
            _constant("cpu.memory_efficiency", cpu.memory_efficiency, SHARE),
            _constant(f"cpu.compute.{(rate := cpu_arithmetic(cpu))}", cpu.compute[rate], "FLOP/s"),
            _constant("cpu.compute_efficiency", cpu.compute_efficiency, SHARE),
        ),
    )


def _constant(name: str, number: Sourced[float] | Sourced[int], unit: str) -> Constant:
    return Constant(name, float(number.value), unit, number.source, number.kind)
