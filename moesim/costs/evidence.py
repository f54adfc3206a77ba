"""Which constants a time rests on, and how well each of them is known.

A simulated second that waits for PCIe rests on the link's bandwidth; whoever reads the result should see whether that
bandwidth was measured or assumed. Each time is charged to one *term*, and a term is as good as its weakest constant,
or ``assumed`` where it was extrapolated beyond what its constants were fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from numpy.typing import ArrayLike

from moesim.costs import cpu_expert
from moesim.costs.charges import Charge
from moesim.costs.flash import flash_read
from moesim.costs.node_times import Ways
from moesim.costs.part import Constant, Part
from moesim.costs.transfer import host_copy
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


@dataclass(frozen=True)
class Waited:
    """A part of the waits for a limit of the machine (``PCIe``, ``flash``, ``CPU``): its term and share of them."""

    limit: str
    share: float
    term: Term


def waits(node: Node, ways: Ways, sizes: ArrayLike) -> list[Waited]:
    """What an offloading node's GPU waits for, by what a transfer of an expert is made of.

    Args:
        sizes: bytes of each expert. [keys]
    """
    found = [*_of_transfer("PCIe", host_copy(sizes, node.link, node.cpu, ways.host))]
    if node.storage is not None:
        found += _of_transfer("flash", flash_read(sizes, node.storage, node.cpu, ways.flash))
    return [*found, Waited("CPU", 1.0, Term("CPU", cpu_expert.constants(node.cpu)))]


#: Terms of a transfer that are waits of their own kind; what is not named here takes its time by the byte.
_LATENCIES = ("latency", "further copies", "requests", "touching pages")
_RATES, _DELAYS = ("B/s", SHARE), ("s", "1/s")


def _of_transfer(limit: str, part: Part) -> Iterator[Waited]:
    """Its bandwidth and its latencies, each with the constants that bear on it."""
    whole = float(part.seconds.sum())
    late = {"latency": True, "bandwidth": False}
    for name, is_latency in late.items():
        seconds = sum(float(part.terms[term].sum()) for term in part.terms if (term in _LATENCIES) == is_latency)
        bearing = [number for number in part.basis.constants if number.unit in (_DELAYS if is_latency else _RATES)]
        yield Waited(limit, seconds / whole if whole else 0.0, Term(f"{limit} {name}", tuple(bearing)))
