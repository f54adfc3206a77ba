"""A Result by hand, of any shape."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from moesim.results import Result

SPREAD = {"n": 3, "mean": 0.031, "p50": 0.0301, "p90": 0.04, "p99": 0.0502, "min": 0.02, "max": 0.051}
CONSTANT = {"name": "link.bandwidth", "value": 26.1e9, "unit": "B/s", "source": "by hand <b>", "kind": "measured"}


def parts(**seconds: float) -> list[dict[str, Any]]:
    whole = sum(seconds.values())
    named = {name.replace("__", ": ").replace("_", " "): value for name, value in seconds.items()}
    return [{"name": name, "seconds": value, "share": value / whole} for name, value in named.items()]


def columns(prefill: int, decode: int) -> dict[str, list[Any]]:
    phase = ["prefill"] * prefill + ["decode"] * decode
    seconds = [2.0] * prefill + [0.02 + 0.001 * (step % 7) for step in range(decode)]
    start = [sum(seconds[:step]) for step in range(len(phase))]
    return {
        "phase": phase,
        "tokens": [1] * len(phase),
        "start_s": start,
        "end_s": [s + d for s, d in zip(start, seconds, strict=True)],
        "stall_s": [0.25 * duration for duration in seconds],
    }


def plain_result(layers: int = 2, experts: int = 4, prefill: int = 1, decode: int = 6) -> dict[str, Any]:
    """The JSON of a consistent-looking run."""
    row = {"lookups": 10, "hits": 6, "late": 1, "misses": 3, "fetched_bytes": 4_000_000}
    times = {"compute_s": 0.75, "stall_s": 0.25, "mean_decode_visit_s": 0.01 if decode else None}
    prefetch = ("proposed", "redundant", "withdrawn", "no_room", "started", "used", "late", "wasted")
    return {
        "schema_version": "1.0",
        "moesim_version": "0.0.test",
        "question": "Is it fast & good?",
        "scenario": {"model": "tiny", "seed": 7, "hardware": {"node": "desk", "gpu": None}},
        "scenario_sha256": "ab" * 32,
        "seed": 7,
        "model": {
            "name": "tiny",
            "hf_id": None,
            "layers": layers,
            "moe_layers": layers,
            "experts": experts,
            "top_k": 1,
            "total_params": 20_914,
            "expert_precision": "bf16",
            "expert_bits_per_weight": 16.0,
            "dense_precision": "bf16",
            "expert_bytes": 1_500_000,
        },
        "hardware": {
            "name": "desk",
            "gpu": "GPU",
            "cpu": "CPU",
            "link": "PCIe",
            "storage": None,
            "host_memory_bytes": 34_359_738_368,
        },
        "trace": {
            "name": "routing",
            "recorded_from": "other",
            "origin": "captured",
            "labels": ["stand-in"],
            "transforms": [],
            "sha256": "cd" * 32,
            "requests": 3,
            "tokens": 300,
            "licence": "Apache-2.0",
        },
        "policies": {
            "caching": {"name": "lru"},
            "host_caching": None,
            "prefetch": {"name": "next-gate", "lookahead": 2},
        },
        "headline": {
            "output_tokens_per_s": 11.1,
            "decode_tokens_per_s": 33.3 if decode else None,
            "ttft_s": SPREAD | {"p50": 1.23, "p99": 2.34} if prefill else None,
            "tpot_s": SPREAD if decode else None,
            "itl_s": SPREAD | {"p50": 0.0287, "n": 60} if decode else None,
            "hit_rate_per_lookup": 0.712,
            "late_rate_per_lookup": 0.123,
            "decode_hit_rate_per_lookup": 0.654,
            "decode_late_rate_per_lookup": 0.098,
            "fetched_bytes_per_decode_token": 456e6,
            "duration_s": 4.56,
        },
        "bottleneck": {
            "bound_by": "flash",
            "share": 0.567,
            "what_if": [
                {
                    "change": "twice the cache",
                    "meaning": "GPU memory for experts doubled",
                    "decode_tokens_per_s": 59.9,
                    "output_tokens_per_s": 18.7,
                    "speedup": 1.68,
                    "decode_speedup": 1.8,
                }
            ],
        },
        "bounds": [
            {
                "name": "every expert on the GPU",
                "meaning": "no waiting",
                "status": "bound only",
                "value": 44.4,
                "unit": "output tokens/s",
                "ours": 11.1,
            }
        ],
        "breakdown": {
            "total": parts(GPU_compute=1.0, GPU_memory=2.0, stall__flash_read=3.0, stall__PCIe_queue=0.5),
            "prefill": parts(GPU_compute=1.0, stall__flash_read=2.0) if prefill else [],
            "decode": parts(GPU_memory=2.0, stall__flash_read=1.0) if decode else [],
        },
        "links": [
            {
                "name": "flash",
                "busy_s": 3.2,
                "busy_share": 0.7,
                "demand_transfers": 12,
                "prefetch_transfers": 3,
                "demand_bytes": 18_000_000,
                "prefetch_bytes": 4_500_000,
            }
        ],
        "counters": {
            "requests": 3,
            "steps": prefill + decode,
            "prefill_tokens": 100 * prefill,
            "decode_tokens": decode,
            "output_tokens": decode + prefill,
            "activations": 1234,
            "lookups": 900,
            "hits": 500,
            "late": 111,
            "misses": 289,
            "cpu_lookups": 5,
            "fetched_bytes": 777_000_000,
            "flash_bytes": 333_000_000,
            "evictions": 17,
            "overshoot_bytes": 0,
            **{f"prefetch_{name}": 100 - place for place, name in enumerate(prefetch)},
        },
        "layers": [{"layer": layer + 1} | row | times for layer in range(layers)],
        "steps": columns(prefill, decode),
        "requests": [],
        "residency": {
            "gpu_share": [[(layer + expert) % 5 / 4 for expert in range(experts)] for layer in range(layers)],
            "gpu_slots": 3.5,
            "gpu_capacity_bytes": 5_250_000,
            "host_capacity_bytes": None,
        },
        "memory": [{"memory": "gpu", "name": "experts", "bytes": 5_250_000}],
        "evidence": [
            {"term": "PCIe bandwidth", "seconds": 3.0, "share": 0.75, "kind": "measured", "constants": [CONSTANT]},
            {"term": "kernel launch", "seconds": 1.0, "share": 0.25, "kind": "assumed", "constants": []},
        ],
        "evidence_shares": {"measured": 0.75, "assumed": 0.25},
        "warnings": ["stand-in: the routing is another model's.", "<script>alert(1)</script>"],
    }


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """A function: changes by dotted path (``headline.duration_s=…``) and the shape, to a Result."""

    def make(changes: dict[str, Any] | None = None, **shape: int) -> Result:
        data = copy.deepcopy(plain_result(**shape))
        for path, value in (changes or {}).items():
            *folders, last = (int(part) if part.isdigit() else part for part in path.split("."))
            place: Any = data
            for folder in folders:
                place = place[folder]
            place[last] = value
        return Result.model_validate(data)

    return make
