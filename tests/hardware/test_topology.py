"""Clusters as graphs: routes are walks, loads are conserved, and small ones are as drawn by hand."""

from itertools import pairwise

import numpy as np
import pytest

from moesim.errors import CardError
from moesim.hardware import available, load_cluster
from moesim.hardware.specs import ClusterSpec
from moesim.hardware.topology import build_topology


def names(topology, source, target):
    path = topology.path(source, target)
    return [path[0].source, *(link.target for link in path)]


@pytest.mark.parametrize("name", available()["cluster"])
def test_every_route_is_a_walk_of_the_graph_and_ends_where_it_should(name):
    topology = build_topology(name, nodes=min(load_cluster(name).nodes, 2))
    graph, per_node = topology.graph, topology.gpus_per_node
    gpus = {data["gpu"]: vertex for vertex, data in graph.nodes(data=True) if data.get("kind") == "gpu"}
    assert len(gpus) == topology.num_gpus
    for source in range(0, topology.num_gpus, 3):
        assert topology.path(source, source) == []
        for target in {0, 1, per_node - 1, topology.num_gpus - 1} - {source}:
            walk = names(topology, source, target)
            assert (walk[0], walk[-1]) == (gpus[source], gpus[target])
            path = topology.path(source, target)
            assert all(one.target == other.source for one, other in pairwise(path))
            assert all(graph.has_edge(*edge) for edge in pairwise(walk))
            assert len(set(walk)) == len(walk)


def test_routes_by_hand():
    topology = build_topology("hgx-h100-x2")
    assert names(topology, 0, 1) == ["n0.gpu0", "n0.nvswitch", "n0.gpu1"]
    assert names(topology, 3, 11) == ["n0.gpu3", "n0.nic3", "leaf0.rail3", "n1.nic3", "n1.gpu3"]
    assert names(topology, 3, 12)[-3:] == ["n1.gpu3", "n1.nvswitch", "n1.gpu4"]
    assert topology.bottleneck(0, 15).level == "network"
    assert topology.path_bytes_per_s[0, 15] == topology.bottleneck(0, 15).bytes_per_s == 48e9
    assert topology.path_bytes_per_s[0, 1] == 380e9
    assert np.isinf(topology.path_bytes_per_s[4, 4])


def test_without_rails_the_spine_is_crossed_between_leaves_only():
    topology = build_topology("hgx-h100-x16-oversubscribed")
    levels = [{link.level for link in topology.path(0, target)} for target in (8, 8 * 4)]
    assert levels == [{"PCIe", "network"}, {"PCIe", "network", "spine"}]
    spine = next(link for link in topology.links if link.level == "spine")
    assert spine.bytes_per_s == pytest.approx(4 * 8 * 48e9 / 4)
    crossing = topology.sharers(topology.links.index(spine))
    assert len(crossing) == 32 * 96  # all of the first leaf's GPUs to all others


def test_host_memory_stands_between_cards_without_peer_access():
    assert names(build_topology("rtx3090-x4-no-peer"), 0, 3) == ["n0.gpu0", "n0.host.memory", "n0.gpu3"]
    assert names(build_topology("rtx3090-x4-peer"), 0, 3) == ["n0.gpu0", "n0.host", "n0.gpu3"]


def test_pcie_switches_share_their_way_to_the_host():
    card = load_cluster("rtx3090-x4-peer").model_dump()
    card["inside"]["gpus_per_switch"] = 2
    topology = build_topology(ClusterSpec.model_validate(card))
    assert names(topology, 0, 1) == ["n0.gpu0", "n0.pcie0", "n0.gpu1"]
    assert names(topology, 0, 3) == ["n0.gpu0", "n0.pcie0", "n0.host", "n0.pcie1", "n0.gpu3"]
    up = [link.name for link in topology.links].index("n0.pcie0 -> n0.host")
    assert sorted(map(tuple, topology.sharers(up).tolist())) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_the_cube_mesh_has_six_links_for_each_gpu():
    topology = build_topology("p3dn-v100-x4", nodes=1)
    width = np.zeros(8)
    for link in topology.links:
        if link.level == "NVLink":
            width[int(link.source.removeprefix("n0.gpu"))] += link.width
    assert (width == 6).all()
    assert len(topology.path(0, 7)) == 2  # no link of their own: through another GPU


@pytest.mark.parametrize("name", ["hgx-h100-x2", "hgx-h100-x16-oversubscribed", "p4d-a100-x4", "p3dn-v100-x4"])
def test_loads_conserve_bytes(name):
    topology = build_topology(name)
    traffic = np.random.default_rng(0).integers(0, 100, (topology.num_gpus,) * 2)
    np.fill_diagonal(traffic, 0)
    loads = topology.link_loads(traffic)
    length = (topology.hops >= 0).sum(axis=1).reshape(traffic.shape)
    assert loads.sum() == (traffic * length).sum()
    leaving = [load for link, load in zip(topology.links, loads, strict=True) if ".nic" in link.source]
    same = topology.node_of[:, None] == topology.node_of
    network = [
        load
        for link, load in zip(topology.links, loads, strict=True)
        if link.level == "network" and link.source.startswith("n")
    ]
    assert sum(network) == traffic[~same].sum()
    assert leaving


def test_any_graph_can_be_written_down():
    card = {
        "name": "ring",
        "title": "Four GPUs in a ring",
        "node": "workstation-4x-rtx3090",
        "nodes": 1,
        "inside": {
            "kind": "links",
            "network": "nvlink-3",
            "links": ["gpu0-gpu1", "gpu1-gpu2", "gpu2-gpu3", "gpu3-gpu0"],
        },
    }
    topology = build_topology(ClusterSpec.model_validate(card))
    assert [len(topology.path(0, target)) for target in range(4)] == [0, 1, 2, 1]
    card["inside"]["links"] = ["gpu0-gpu1", "gpu2-gpu3"]
    with pytest.raises(CardError, match="gpu0 and gpu2 are not joined"):
        build_topology(ClusterSpec.model_validate(card))
    card["inside"]["links"] = ["gpu0 gpu1"]
    with pytest.raises(CardError, match="'gpu0 gpu1' is no link"):
        build_topology(ClusterSpec.model_validate(card))


def test_faults():
    with pytest.raises(CardError, match="2 nodes need a network"):
        build_topology("gb200-nvl72-rack", nodes=2)
    with pytest.raises(CardError, match="more than 2048"):
        build_topology("hgx-h100-x16", nodes=1000)
