"""The wires of one node, and the ways between its GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import CardError
from moesim.hardware.specs import InsideSpec, NodeSpec

Ints = NDArray[np.int64]
_LINK = re.compile(r"\s*([A-Za-z][\w.]*)\s*-\s*([A-Za-z][\w.]*)\s*(?:x\s*([\d.]+))?\s*")


@dataclass(frozen=True)
class Wire:
    """One direction of a connection in a node: ``width`` of the network card's links side by side."""

    source: str
    target: str
    level: str
    network: str
    width: float = 1.0


def node_wires(inside: InsideSpec, node: NodeSpec, gpus: int) -> tuple[list[Wire], Ints]:
    """The wires of a node and, for each pair of its GPUs, which of them lie on the way, padded with -1.

    Returns:
        wires, and their numbers. [gpus, gpus, hops]

    Raises:
        CardError: two GPUs are not joined, or a link is not written as it must be.
    """
    wires = [wire for both in _connections(inside, node, gpus) for wire in both]
    return wires, _routes(wires, gpus, node.name)


def _both(one: str, other: str, level: str, network: str, width: float = 1.0) -> tuple[Wire, Wire]:
    return Wire(one, other, level, network, width), Wire(other, one, level, network, width)


def _connections(inside: InsideSpec, node: NodeSpec, gpus: int) -> Iterator[tuple[Wire, Wire]]:
    match inside.kind:
        case "switch":
            for gpu in range(gpus):
                yield _both(f"gpu{gpu}", "nvswitch", "NVLink", inside.network)
        case "mesh":
            for one in range(gpus):
                for other in range(one + 1, gpus):
                    yield _both(f"gpu{one}", f"gpu{other}", "NVLink", inside.network, 1 / (gpus - 1))
        case "pairs":
            for one in range(0, gpus - 1, 2):
                yield _both(f"gpu{one}", f"gpu{one + 1}", "NVLink", inside.network)
            yield from _pcie(inside, node, gpus)
        case "pcie":
            yield from _pcie(inside, node, gpus)
        case "links":
            for text in inside.links:
                yield _written(text, inside.network, node.name)


def _pcie(inside: InsideSpec, node: NodeSpec, gpus: int) -> Iterator[tuple[Wire, Wire]]:
    """GPUs on switches, switches on the host; without peer access the host stands for its memory."""
    network = inside.pcie or (inside.network if inside.kind == "pcie" else None)
    if network is None:
        raise CardError.of(node.name, f"inside: {inside.kind} needs the card of PCI Express", "give `pcie:`")
    meeting = "host" if inside.peer else "host.memory"
    for gpu in range(gpus):
        if inside.gpus_per_switch == 1:
            yield _both(f"gpu{gpu}", meeting, "PCIe", network)
        else:
            switch = f"pcie{gpu // inside.gpus_per_switch}"
            yield _both(f"gpu{gpu}", switch, "PCIe", network)
            if gpu % inside.gpus_per_switch == 0:
                yield _both(switch, meeting, "PCIe", network)


def _written(text: str, network: str, place: str) -> tuple[Wire, Wire]:
    match = _LINK.fullmatch(text)
    if match is None:
        raise CardError.of(place, f"{text!r} is no link", "write it as 'gpu0 - gpu1' or 'gpu0 - switch x 2'")
    return _both(match[1], match[2], "NVLink", network, float(match[3] or 1))


def _routes(wires: list[Wire], gpus: int, place: str) -> Ints:
    """Fewest hops, then widest, never through another GPU where it can be helped. [gpus, gpus, hops]"""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    names = [f"gpu{gpu}" for gpu in range(gpus)]
    graph.add_nodes_from(names)
    through_gpu, narrow = 1000.0, 1e-3
    for number, wire in enumerate(wires):
        cost = 1.0 + narrow / wire.width + (through_gpu if wire.source.startswith("gpu") else 0.0)
        graph.add_edge(wire.source, wire.target, number=number, cost=cost)
    unknown = sorted(name for name in graph if name.startswith("gpu") and name not in names)
    if unknown:
        raise CardError.of(place, f"{unknown[0]} is linked, and a node has {gpus} GPUs")
    found: dict[tuple[int, int], list[int]] = {}
    ways = {name: nx.single_source_dijkstra_path(graph, name, weight="cost") for name in names}
    for one, other in permutations(range(gpus), 2):
        way = ways[names[one]].get(names[other])
        if way is None:
            raise CardError.of(place, f"{names[one]} and {names[other]} are not joined", "add links")
        found[one, other] = [graph.edges[edge]["number"] for edge in pairwise(way)]
    hops = np.full((gpus, gpus, max(map(len, found.values()), default=1)), -1, dtype=np.int64)
    for pair, way_hops in found.items():
        hops[pair][: len(way_hops)] = way_hops
    return hops
