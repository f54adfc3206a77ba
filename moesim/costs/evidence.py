"""Which constants a time rests on, and how well each of them is known.

A simulated second that waits for PCIe rests on the link's bandwidth; whoever reads the result should see whether that
bandwidth was measured or assumed. Each time is charged to one *term*, and a term is as good as its weakest constant,
or ``assumed`` where it was extrapolated beyond what its constants were fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moesim.costs.charges import Charge
from moesim.costs.cpu_expert import PER_CORE_BYTES_PER_S, START_S
from moesim.costs.devices import cpu_arithmetic
from moesim.costs.part import Constant, card_constant
from moesim.hardware import Node
from moesim.hardware.sourced import Kind, weakest

#: The unit of a share of a peak.
SHARE = "1"


@dataclass(frozen=True)
class Term:
    """A part of the simulated time and the constants that it is computed from.

    Attributes:
        extrapolated: in words, what lies outside of what the constants were fitted to; empty inside.
    """

    name: str
    constants: tuple[Constant, ...]
    extrapolated: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind of its weakest constant; assumed where extrapolated."""
        return "assumed" if self.extrapolated else weakest(constant.kind for constant in self.constants)


def charge_term(charge: Charge, extrapolated: bool) -> Term:
    """The term of a charge's seconds inside, or outside of the fitted range."""
    if extrapolated:
        return Term(f"{charge.name}, extrapolated", charge.basis.constants, charge.reasons)
    return Term(charge.name, charge.basis.constants)


def terms(node: Node) -> Mapping[str, Term]:
    """The terms of what an offloading node's GPU waits for, by name."""
    return {term.name: term for term in _terms(node)}


def _terms(node: Node) -> Iterator[Term]:
    cpu, link = node.cpu, node.link
    yield Term("PCIe bandwidth", (card_constant("link.bandwidth", link.bandwidth, "B/s"),))
    yield Term("PCIe latency", (card_constant("link.latency", link.latency, "s"),))
    if node.storage is not None:
        read = card_constant("storage.read_bandwidth", node.storage.read_bandwidth, "B/s")
        share = card_constant("storage.read_efficiency", node.storage.read_efficiency, SHARE)
        yield Term("flash bandwidth", (read, share))
        yield Term("flash latency", (card_constant("storage.read_latency", node.storage.read_latency, "s"),))
    yield Term(
        "CPU",
        (
            card_constant("cpu.memory_bandwidth", cpu.memory_bandwidth, "B/s"),
            card_constant("cpu.memory_efficiency", cpu.memory_efficiency, SHARE),
            card_constant(f"cpu.compute.{(rate := cpu_arithmetic(cpu))}", cpu.compute[rate], "FLOP/s"),
            card_constant("cpu.compute_efficiency", cpu.compute_efficiency, SHARE),
            Constant("cpu.per_core", PER_CORE_BYTES_PER_S, "B/s", "moesim.costs.cpu_expert", "assumed"),
            Constant("cpu.start", START_S, "s", "moesim.costs.cpu_expert", "assumed"),
        ),
    )
