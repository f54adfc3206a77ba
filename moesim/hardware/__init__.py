"""Hardware: what parts can do, and machines made of them.

Where to read first:

1. ``sourced`` - a number with its source: what every number here is.
2. ``specs`` - the families of parts, one class each, and what each of their numbers means.
3. ``cards/FAMILY/*.yaml`` - the parts. To add one, add a file; nothing else changes.
4. ``node`` - a machine put together from cards, for a scenario.
5. ``topology`` - machines joined by a network: a graph of GPUs, switches and NICs, and the way between any two GPUs.

``catalog`` finds and checks cards; ``override`` replaces one number by the user's.
"""

from moesim.hardware.catalog import (
    available,
    load_cluster,
    load_cpu,
    load_gpu,
    load_link,
    load_machine,
    load_network,
    load_node_card,
    load_storage,
    read_card,
)
from moesim.hardware.machine import MachineSpec
from moesim.hardware.node import Node, build_node
from moesim.hardware.sourced import KINDS, Kind, Sourced, weakest
from moesim.hardware.specs import ClusterSpec, CpuSpec, GpuSpec, LinkSpec, NetworkSpec, NodeSpec, Spec, StorageSpec

__all__ = [
    "KINDS",
    "ClusterSpec",
    "CpuSpec",
    "GpuSpec",
    "Kind",
    "LinkSpec",
    "MachineSpec",
    "NetworkSpec",
    "Node",
    "NodeSpec",
    "Sourced",
    "Spec",
    "StorageSpec",
    "available",
    "build_node",
    "load_cluster",
    "load_cpu",
    "load_gpu",
    "load_link",
    "load_machine",
    "load_network",
    "load_node_card",
    "load_storage",
    "read_card",
    "weakest",
]
