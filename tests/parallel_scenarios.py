"""Small parallel scenarios for tests: synthetic routing on shipped clusters."""

from moesim.scenario import load_scenario
from moesim.scenario.parallel.run import run_parallel


def scenario_of(cluster="hgx-h100-x2", model="gpt-oss-20b", layers=2, skew=0.8, **parallel):
    hardware = {"cluster": cluster}
    policies = {"placement": parallel.pop("placement", "contiguous")}
    batch = {"tokens_per_gpu": 16, "steps": 2, "context": 512, **parallel.pop("batch", {})}
    return {
        "model": model,
        "trace": {
            "file": "none",
            "synthetic": {"layers": layers, "requests": 300, "output": 2, "prompt": 1, "skew": skew, "stickiness": 0.0},
        },
        "hardware": {**hardware, **parallel.pop("hardware", {})},
        "policies": policies,
        "precision": {"experts": "bf16"},
        "workload": {"train_fraction": 0.3},
        "parallel": {"batch": batch, **parallel},
    }


def run_of(**kwargs):
    return run_parallel(load_scenario(scenario_of(**kwargs)))
