"""A benchmark: a sweep on a Ray cluster of two nodes, one of which is killed in mid-sweep.

    python tests/studies/ray_two_nodes.py SWEEP.yaml STORE

Prints one JSON object: how many points ran, how many were done when the node was killed, the seconds that the sweep
took, and those that the same sweep takes on two nodes that live (in a store of its own).
"""

import json
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from moesim.studies.execution import OnRay
from moesim.studies.sweep import load_sweep, points_of, run_sweep


def timed_sweep(path: Path, store: Path, kill_after: int | None) -> dict:
    """One sweep on two fresh nodes of one CPU each; after so many points, one node is killed."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    sweep, base = load_sweep(path)
    killed_at = []

    def watch(now):
        if kill_after is not None and now.done >= kill_after and not killed_at:
            cluster.remove_node(second, allow_graceful=False)
            killed_at.append(now.done)

    started = time.monotonic()
    result = run_sweep(sweep, base, store, OnRay(), progress=watch)
    seconds = time.monotonic() - started
    ray.shutdown()
    cluster.shutdown()
    failed = [row.message for row in result.rows if row.status == "failed"]
    return {"seconds": seconds, "points": len(result.rows), "failed": failed, "killed_at": killed_at}


if __name__ == "__main__":
    path, store = Path(sys.argv[1]), Path(sys.argv[2])
    points = len(points_of(load_sweep(path)[0]))
    whole = timed_sweep(path, store / "whole", None)
    killed = timed_sweep(path, store / "killed", points // 4)
    print(json.dumps({"whole": whole, "killed": killed}))
