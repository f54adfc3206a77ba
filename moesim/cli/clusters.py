"""``moesim hardware show CLUSTER``: a cluster's links, the ways between its GPUs, and who shares them."""

from __future__ import annotations

from typing import Any

from moesim.cli.console import out, print_json, print_table
from moesim.hardware.topology import Topology, build_topology, describe
from moesim.units import format_bandwidth, format_seconds


def show_cluster(name: str, as_json: bool) -> None:
    """Print a cluster card."""
    topology = build_topology(name)
    if as_json:
        print_json(_facts(topology))
        return
    spec = topology.spec
    console = out()
    console.print(f"{spec.title} (cluster)", style="bold", markup=False)
    per_node = f"{topology.num_nodes} x {topology.gpus_per_node} {topology.gpu.title}"
    shape = f"{topology.graph.number_of_nodes()} vertices, {len(topology.links)} directed links"
    console.print(f"{per_node}; node card {topology.node_card.name}; a graph of {shape}", markup=False)
    rows = [
        [
            level,
            str(count),
            link.name,
            link.network,
            format_bandwidth(link.raw_bytes_per_s),
            format_bandwidth(link.bytes_per_s),
            format_seconds(link.latency_s),
        ]
        for level, count, link in describe(topology)
    ]
    print_table(["level", "links", "for example", "network card", "line", "copies reach", "latency"], rows)
    for text, source, target in _examples(topology):
        _print_way(topology, text, source, target)
    for note in spec.notes:
        console.print(f"note: {note}", style="dim", markup=False)
    console.print("Sources of the numbers: `moesim hardware show NETWORK-CARD`.", style="dim", markup=False)


def _examples(topology: Topology) -> list[tuple[str, int, int]]:
    last = topology.num_gpus - 1
    ways = [("within a node", 0, min(1, last))]
    if topology.gpus_per_node > 2:
        ways.append(("within a node", 0, topology.gpus_per_node - 1))
    if topology.num_nodes > 1:
        ways += [("between nodes, same place", 0, topology.gpus_per_node), ("between nodes", 0, last)]
    return ways


def _print_way(topology: Topology, text: str, source: int, target: int) -> None:
    console, path = out(), topology.path(source, target)
    slowest = topology.bottleneck(source, target)
    sharing = len(topology.sharers(topology.links.index(slowest)))
    console.print(f"\nGPU {source} to {target} ({text})", style="bold", markup=False)
    console.print(
        "  " + "  ".join([path[0].source, *(f"-{link.level}-> {link.target}" for link in path)]), markup=False
    )
    reach = f"{format_bandwidth(slowest.bytes_per_s)} on {slowest.name}"
    shared = f"shared by {sharing:,} of {topology.num_gpus * (topology.num_gpus - 1):,} pairs"
    console.print(f"  bottleneck {reach}, {shared}", markup=False)


def _facts(topology: Topology) -> dict[str, Any]:
    links = [
        {
            "level": level,
            "links": count,
            "example": link.name,
            "network": link.network,
            "raw_bytes_per_s": link.raw_bytes_per_s,
            "bytes_per_s": link.bytes_per_s,
            "latency_s": link.latency_s,
        }
        for level, count, link in describe(topology)
    ]
    ways = [
        {
            "from": source,
            "to": target,
            "where": text,
            "path": [link.name for link in topology.path(source, target)],
            "bottleneck": topology.bottleneck(source, target).name,
            "bytes_per_s": topology.bottleneck(source, target).bytes_per_s,
        }
        for text, source, target in _examples(topology)
    ]
    counts = {"gpus": topology.num_gpus, "nodes": topology.num_nodes}
    return {**topology.spec.model_dump(mode="json"), **counts, "links": links, "ways": ways}
