"""A sweep on two Ray nodes of this machine, with and without one of them killed while it runs. Prints JSON.

    python tests/studies/ray_two_nodes.py SWEEP STORE

`moesim bench two-nodes` does the same to a sweep of its own.
"""

import json
import sys
from pathlib import Path

from moesim.studies.bench_serving import timed_sweep
from moesim.studies.sweep import load_sweep, points_of

if __name__ == "__main__":
    path, store = Path(sys.argv[1]), Path(sys.argv[2])
    points = len(points_of(load_sweep(path)[0]))
    whole = timed_sweep(path, store / "whole", None)
    killed = timed_sweep(path, store / "killed", points // 4)
    print(json.dumps({"whole": whole, "killed": killed}))
