"""A cluster as a graph of GPUs, switches, NICs, leaf and spine, and the way of the bytes between any two GPUs.

``build_topology`` wires a :class:`ClusterSpec`; ``Topology`` answers: which path, where is its bottleneck, who shares a
link, how many bytes does each link carry. Links are directed (one way each). Switches are assumed never to block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import CardError
from moesim.hardware.catalog import load_cluster, load_gpu, load_network, load_node_card
from moesim.hardware.sourced import Sourced
from moesim.hardware.specs import ClusterSpec, GpuSpec, NetworkSpec, NodeSpec
from moesim.hardware.wiring import Wire, node_wires

if TYPE_CHECKING:
    import networkx as nx

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: A cluster this large is a slip of the pen; its routes alone would take gigabytes.
MAX_GPUS = 2048
SPINE = "spine"


@dataclass(frozen=True)
class Link:
    """One direction of a connection.

    Attributes:
        source, target: names of the graph's nodes.
        level: ``NVLink``, ``PCIe``, ``memory``, ``network`` or ``spine``.
        network: the card that its numbers are from.
        width: how many of the card's links lie side by side.
        raw_bytes_per_s, bytes_per_s: the line, and what copies reach, of all of them.
        alltoall_bytes_per_s: what all-to-all traffic reaches: of a network, the card's figure where it has one.
    """

    source: str
    target: str
    level: str
    network: str
    width: float
    raw_bytes_per_s: float
    bytes_per_s: float
    alltoall_bytes_per_s: float
    latency_s: float

    @property
    def name(self) -> str:
        """``n0.gpu1 -> n0.nvswitch``."""
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True, eq=False)
class Topology:
    """GPUs of a cluster, its links, and the route between each pair.

    Attributes:
        spec, node_card, gpu: what it is made of.
        node_of: the node of each GPU, ascending. [gpus]
        links: all of them.
        hops: the links on the way from GPU i to j, in order, padded with -1; row ``i * gpus + j``. [pairs, hops]
    """

    spec: ClusterSpec
    node_card: NodeSpec
    gpu: GpuSpec
    node_of: Ints
    links: tuple[Link, ...]
    hops: NDArray[np.int32]

    @property
    def name(self) -> str:
        """The cluster's card, and how many nodes of it."""
        return self.spec.name

    @property
    def num_gpus(self) -> int:
        """GPUs of the cluster."""
        return len(self.node_of)

    @property
    def num_nodes(self) -> int:
        """Nodes of the cluster."""
        return int(self.node_of[-1]) + 1

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each node."""
        return self.num_gpus // self.num_nodes

    def path(self, source: int, target: int) -> list[Link]:
        """The links on the way from one GPU to another, in order."""
        row = self.hops[source * self.num_gpus + target]
        return [self.links[hop] for hop in row[row >= 0]]

    def bottleneck(self, source: int, target: int) -> Link:
        """The slowest link of a path."""
        return min(self.path(source, target), key=lambda link: link.bytes_per_s)

    def sharers(self, link: int) -> Ints:
        """The pairs of GPUs whose way leads over a link. [pairs, 2]"""
        rows = np.flatnonzero((self.hops == link).any(axis=1))
        return np.stack(np.divmod(rows, self.num_gpus), axis=1)

    @cached_property
    def incidence(self) -> Any:
        """1 where a pair's route uses a link: a sparse matrix. [links, pairs]"""
        from scipy.sparse import csr_array

        rows, columns = np.nonzero(self.hops >= 0)
        link = self.hops[rows, columns]
        shape = (len(self.links), self.num_gpus**2)
        return csr_array((np.ones(len(rows), dtype=np.float64), (link, rows)), shape=shape)

    def link_loads(self, traffic: ArrayLike) -> Floats:
        """What each link carries of a traffic matrix. [links] from [gpus, gpus]"""
        return np.asarray(self.incidence @ np.asarray(traffic, dtype=np.float64).ravel())

    @cached_property
    def link_bytes_per_s(self) -> Floats:
        """What copies reach on each link. [links]"""
        return np.array([link.bytes_per_s for link in self.links])

    @cached_property
    def path_bytes_per_s(self) -> Floats:
        """What one flow alone reaches between each pair; infinite on the diagonal. [gpus, gpus]"""
        rate = np.append(self.link_bytes_per_s, np.inf)  # hop -1
        return np.asarray(rate[self.hops].min(axis=1, initial=np.inf).reshape(self.num_gpus, self.num_gpus))

    @cached_property
    def path_latency_s(self) -> Floats:
        """The largest latency on the way between each pair: that of its slowest kind of link. [gpus, gpus]"""
        latency = np.append([link.latency_s for link in self.links], 0.0)
        return np.asarray(latency[self.hops].max(axis=1, initial=0.0).reshape(self.num_gpus, self.num_gpus))

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """The links as a networkx graph; edges hold ``level``, ``bytes_per_s``, ``latency_s``, ``network``."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph(name=self.name)
        for gpu in range(self.num_gpus):
            graph.add_node(gpu_name(gpu, self.gpus_per_node), kind="gpu", gpu=gpu)
        for number, link in enumerate(self.links):
            graph.add_edge(
                link.source,
                link.target,
                number=number,
                level=link.level,
                network=link.network,
                bytes_per_s=link.bytes_per_s,
                latency_s=link.latency_s,
            )
        return graph


def gpu_name(gpu: int, per_node: int) -> str:
    """The graph's name of a GPU."""
    node, place = divmod(gpu, per_node)
    return f"n{node}.gpu{place}"


def build_topology(
    cluster: str | ClusterSpec,
    nodes: int | None = None,
    networks: Mapping[str, NetworkSpec] | None = None,
    gpu: GpuSpec | None = None,
) -> Topology:
    """Wire a cluster.

    Args:
        cluster: the name of its card, or the card.
        nodes: another number of nodes than the card's.
        networks: network cards to use in place of the shipped ones, by name.
        gpu: one to use in place of the node card's.

    Raises:
        CardError: unknown names, a graph that doesn't join all GPUs, or too many of them.
    """
    spec = load_cluster(cluster) if isinstance(cluster, str) else cluster
    node_card = load_node_card(spec.node)
    return _Builder(spec, node_card, nodes or spec.nodes, networks or {}).topology(gpu or load_gpu(node_card.gpu))


class _Builder:
    """Where links get their numbers and pairs their routes."""

    def __init__(self, spec: ClusterSpec, node_card: NodeSpec, nodes: int, networks: Mapping[str, NetworkSpec]):
        self.spec, self.node_card, self.nodes = spec, node_card, nodes
        self.per_node = spec.gpus_per_node or node_card.gpu_count
        self._networks = networks
        self.links: list[Link] = []
        if nodes > 1 and spec.between is None:
            raise CardError.of(spec.name, f"{nodes} nodes need a network between them", "give `between:`")
        if nodes * self.per_node > MAX_GPUS:
            raise CardError.of(spec.name, f"{nodes * self.per_node} GPUs are more than {MAX_GPUS}", "fewer nodes")

    def topology(self, gpu: GpuSpec) -> Topology:
        """All links and routes."""
        wires, inside = node_wires(self.spec.inside, self.node_card, self.per_node)
        width = len(wires)
        for node in range(self.nodes):
            self.links += [self._link(wire, f"n{node}.") for wire in wires]
        gpus = self.nodes * self.per_node
        node_of = np.arange(gpus) // self.per_node
        hops = _within(inside, width, self.nodes, self.per_node)
        if self.nodes > 1:
            between = self._between(inside, width, node_of)
            hops = np.where((node_of[:, None] == node_of)[:, :, None], _padded(hops, between.shape[2]), between)
        hops = hops.reshape(gpus * gpus, -1)
        return Topology(self.spec, self.node_card, gpu, node_of, tuple(self.links), hops.astype(np.int32))

    def _link(self, wire: Wire, prefix: str) -> Link:
        """A wire inside of a node."""
        return self._made(prefix + wire.source, prefix + wire.target, wire.level, wire.network, wire.width)

    def _made(self, source: str, target: str, level: str, network: str, width: float) -> Link:
        card = self._networks.get(network) or load_network(network)
        raw, rate = card.bandwidth_raw.value * width, card.bandwidth.value * width
        known = card.alltoall_bandwidth if level in ("network", "spine") else None
        alltoall = known.value * width if known else rate
        return Link(source, target, level, network, width, raw, rate, alltoall, card.latency.value)

    def _between(self, inside: Ints, width: int, node_of: Ints) -> Ints:
        """Links of NICs, leaves and spine, and the routes between GPUs of different nodes. [gpus, gpus, hops]"""
        between = self.spec.between
        assert between is not None
        nics = -(-self.per_node // between.gpus_per_nic)
        rails, leaf_nodes = between.rails, between.nodes_per_leaf
        leaves = -(-self.nodes // leaf_nodes)
        planes = nics if rails else 1

        def leaf(node: int, nic: int) -> str:
            return f"leaf{node // leaf_nodes}" + (f".rail{nic}" if rails else "")

        card = self.spec.inside.pcie
        if card is None:
            raise CardError.of(
                self.spec.name, "NICs need the card of their way to the GPUs", "give `inside: {pcie: ...}`"
            )
        plugs = len(self.links)
        for gpu in range(self.nodes * self.per_node):
            node, place = divmod(gpu, self.per_node)
            ends = gpu_name(gpu, self.per_node), f"n{node}.nic{place // between.gpus_per_nic}"
            self.links += [self._made(*ends, "PCIe", card, 1), self._made(*ends[::-1], "PCIe", card, 1)]
        first = len(self.links)
        for node in range(self.nodes):
            for nic in range(nics):
                name = f"n{node}.nic{nic}"
                self.links.append(self._made(name, leaf(node, nic), "network", between.network, 1))
                self.links.append(self._made(leaf(node, nic), name, "network", between.network, 1))
        spine = len(self.links)
        if leaves > 1:
            up = leaf_nodes * nics / planes / between.oversubscription
            for group in range(leaves):
                for plane in range(planes):
                    name = leaf(group * leaf_nodes, plane)
                    self.links.append(self._made(name, SPINE, "spine", between.network, up))
                    self.links.append(self._made(SPINE, name, "spine", between.network, up))
        return self._routes(inside, width, node_of, nics, planes, (plugs, first, spine))

    def _routes(
        self, inside: Ints, width: int, node_of: Ints, nics: int, planes: int, starts: tuple[int, int, int]
    ) -> Ints:
        """Out of a GPU's NIC; on rails into the same rail's NIC and on inside of the node, else into the GPU's own."""
        between = self.spec.between
        assert between is not None
        plugs, first, spine = starts
        gpus, local = len(node_of), np.arange(len(node_of)) % self.per_node
        i, j = np.meshgrid(np.arange(gpus), np.arange(gpus), indexing="ij")
        nic = local // between.gpus_per_nic
        arrives = nic[i] if between.rails else nic[j]
        out = first + 2 * (node_of[i] * nics + nic[i])
        into = first + 2 * (node_of[j] * nics + arrives) + 1
        group = node_of // between.nodes_per_leaf
        plane = nic if planes > 1 else np.zeros_like(nic)
        far = group[i] != group[j]
        up = np.where(far, spine + 2 * (group[i] * planes + plane[i]), -1)
        down_plane = plane[i] if between.rails else plane[j]
        down = np.where(far, spine + 2 * (group[j] * planes + down_plane) + 1, -1)
        landed = node_of[j] * self.per_node + (local[i] if between.rails else local[j])
        columns = [plugs + 2 * i, out, up, down, into, plugs + 2 * landed + 1]
        if between.rails:
            onward = inside[local[i], local[j]]
            columns += [np.where(hop >= 0, hop + node_of[j] * width, -1) for hop in np.moveaxis(onward, 2, 0)]
        return np.stack(columns, axis=2)


def _within(inside: Ints, width: int, nodes: int, per_node: int) -> Ints:
    """Routes inside of nodes; other pairs hold rubbish that is replaced. [gpus, gpus, hops]"""
    gpus = nodes * per_node
    local, node = np.arange(gpus) % per_node, np.arange(gpus) // per_node
    hops = inside[local[:, None], local[None, :]]
    return np.where(hops >= 0, hops + (node * width)[:, None, None], -1)


def _padded(hops: Ints, width: int) -> Ints:
    missing = width - hops.shape[2]
    return np.pad(hops, ((0, 0), (0, 0), (0, max(missing, 0))), constant_values=-1)[:, :, : max(width, hops.shape[2])]


def describe(topology: Topology) -> Sequence[tuple[str, int, Link]]:
    """Each kind of link once: its level, how many there are, and one of them."""
    kinds: dict[tuple[str, str, float], list[Link]] = {}
    for link in topology.links:
        kinds.setdefault((link.level, link.network, link.bytes_per_s), []).append(link)
    return [(level, len(links), links[0]) for (level, _, _), links in kinds.items()]


def sourced_numbers(topology: Topology) -> Mapping[str, Sourced[float]]:
    """The numbers of the network cards that the cluster is wired with."""
    found: dict[str, Sourced[float]] = {}
    for name in dict.fromkeys(link.network for link in topology.links):
        card = load_network(name)
        found |= {f"{name}.bandwidth": card.bandwidth, f"{name}.latency": card.latency}
    return found
