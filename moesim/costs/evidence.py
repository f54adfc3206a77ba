"""Which constants a time rests on, and how well each of them is known.

A simulated second that waits for PCIe rests on the link's bandwidth; whoever reads the result should see whether that
bandwidth was measured or assumed. Each time is charged to one *term*, and a term is as good as its weakest constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moesim.hardware import Node, Sourced
from moesim.hardware.sourced import Kind, weakest


@dataclass(frozen=True)
class Constant:
    """A card's number: its dotted name, its value in SI units, where it comes from and how well it is known."""

    name: str
    value: float
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
    rate = _constant(f"gpu.compute.{arithmetic}", gpu.compute[arithmetic])
    yield Term("GPU compute", (rate, _constant("gpu.compute_efficiency", gpu.compute_efficiency)))
    yield Term(
        "GPU memory",
        (
            _constant("gpu.memory_bandwidth", gpu.memory_bandwidth),
            _constant("gpu.memory_efficiency", gpu.memory_efficiency),
        ),
    )
    yield Term("kernel launch", (_constant("gpu.kernel_launch", gpu.kernel_launch),))
    yield Term("PCIe bandwidth", (_constant("link.bandwidth", link.bandwidth),))
    yield Term("PCIe latency", (_constant("link.latency", link.latency),))
    if node.storage is not None:
        efficiency = _constant("storage.read_efficiency", node.storage.read_efficiency)
        yield Term("flash bandwidth", (_constant("storage.read_bandwidth", node.storage.read_bandwidth), efficiency))
        yield Term("flash latency", (_constant("storage.read_latency", node.storage.read_latency),))
    cpu_rate = next(iter(cpu.compute))
    yield Term(
        "CPU",
        (
            _constant("cpu.memory_bandwidth", cpu.memory_bandwidth),
            _constant("cpu.memory_efficiency", cpu.memory_efficiency),
            _constant(f"cpu.compute.{cpu_rate}", cpu.compute[cpu_rate]),
            _constant("cpu.compute_efficiency", cpu.compute_efficiency),
        ),
    )


def _constant(name: str, number: Sourced[float] | Sourced[int]) -> Constant:
    return Constant(name, float(number.value), number.source, number.kind)
