"""Hardware cards: YAML files below ``cards/FAMILY/``, read once and checked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from moesim.documents import read_yaml, validate
from moesim.errors import CardError
from moesim.hardware.machine import MachineSpec
from moesim.hardware.specs import (
    ClusterSpec,
    CpuSpec,
    GpuSpec,
    LinkSpec,
    NetworkSpec,
    NodeSpec,
    Spec,
    StorageSpec,
)
from moesim.registry import card_path, card_paths

CARDS = Path(__file__).parent / "cards"
FAMILIES: dict[str, type[Spec]] = {
    "gpu": GpuSpec,
    "cpu": CpuSpec,
    "link": LinkSpec,
    "storage": StorageSpec,
    "network": NetworkSpec,
    "node": NodeSpec,
    "cluster": ClusterSpec,
    "machine": MachineSpec,
}
AnySpec = TypeVar("AnySpec", bound=Spec)


def available() -> dict[str, list[str]]:
    """Family -> names of its cards, sorted."""
    return {family: list(card_paths(CARDS / family)) for family in FAMILIES}


def read_card(path: Path, spec: type[AnySpec]) -> AnySpec:
    """The card in a file.

    Raises:
        FileError: the file can't be read.
        CardError: the card is wrong; every fault with its line.
    """
    document = read_yaml(path, CardError)
    card = validate(document, spec, CardError)
    if card.name != path.stem:
        raise CardError.of(document.place(["name"]), f"must be the file's name (got {card.name!r})", path.stem)
    return card


@cache
def load_gpu(name: str) -> GpuSpec:
    """The GPU of that name.

    Raises:
        CardError: no such card (the hint names the nearest), or the card is wrong.
    """
    return _load("gpu", name, GpuSpec)


@cache
def load_cpu(name: str) -> CpuSpec:
    """As :func:`load_gpu`, a CPU with its DRAM."""
    return _load("cpu", name, CpuSpec)


@cache
def load_link(name: str) -> LinkSpec:
    """As :func:`load_gpu`, a link between host and GPU."""
    return _load("link", name, LinkSpec)


@cache
def load_storage(name: str) -> StorageSpec:
    """As :func:`load_gpu`, a drive."""
    return _load("storage", name, StorageSpec)


@cache
def load_network(name: str) -> NetworkSpec:
    """As :func:`load_gpu`, a link between GPUs."""
    return _load("network", name, NetworkSpec)


@cache
def load_node_card(name: str) -> NodeSpec:
    """As :func:`load_gpu`, a machine as a list of part names; :func:`moesim.hardware.build_node` assembles it."""
    return _load("node", name, NodeSpec)


@cache
def load_cluster(name: str) -> ClusterSpec:
    """As :func:`load_gpu`, machines joined by a network; :func:`moesim.hardware.topology.build_topology` wires them."""
    return _load("cluster", name, ClusterSpec)


@cache
def load_machine(name: str) -> MachineSpec:
    """As :func:`load_gpu`, a machine that moesim measured; its parts can also be loaded by its name."""
    return _load("machine", name, MachineSpec)


def _load(family: str, name: str, spec: type[AnySpec]) -> AnySpec:
    if family in MachineSpec.PARTS and name in card_paths(CARDS / "machine"):
        part = getattr(load_machine(name), family)
        if isinstance(part, spec):
            return part
        raise CardError.of(family, f"the machine {name!r} was measured without one", "name another card")
    try:
        path = card_path(CARDS / family, name)
    except CardError as error:
        raise CardError([replace(fault, place=family) for fault in error.faults]) from None
    return read_card(path, spec)
