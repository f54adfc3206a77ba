"""Fits find the constants of machines that have them, whatever the rows' order, and never look at held-out rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microbench_builders import result_of, rows_of

from moesim.errors import MicrobenchError
from moesim.microbench.card import card_fields
from moesim.microbench.fit import fit_form, fit_rows, predicted_seconds
from moesim.microbench.forms import FORMS
from moesim.microbench.suite.cuda import token_counts

COPY = {"latency": 5e-6, "per_segment": 3e-6, "bandwidth": 55e9, "ramp": 4e-6, "knee": 2e5}
STREAM = {"latency": 2e-6, "one_thread": 12e9, "all_threads": 60e9, "sharpness": 3.0}
REQUESTS = {"latency": 8e-5, "one_stream": 2e9, "iops": 9e4, "bandwidth": 6e9, "sharpness": 4.0}
CPU = {
    "latency": 8e-6,
    "one_thread": 12e9,
    "all_threads": 60e9,
    "unpack": 16e9,
    "rate": 1.5e11,
    "sharpness": 3.0,
}
GPU = {"launch": 6e-6, "bandwidth": 2.6e12, "rate": 4e14, "sharpness": 3.0}
GROUPED = {"launch": 6e-6, "per_launch": 4e-6, "per_expert": 2e-7, "bandwidth": 2.6e12, "rate": 4e14, "sharpness": 3.0}
CACHED = {"latency": 3e-6, "bandwidth": 2.9e12, "cache_bandwidth": 6e12, "cache": 4e7}
QUEUE = {"latency": 1e-5, "bandwidth": 55e9, "waits": 1.0, "shares": 1e-3}
BESIDE = {"latency": 6e-6, "bandwidth": 55e9, "hbm": 1.08, "gemm": 1.02, "tiny": 1.01, "both": 1.2}
KERNEL = {"alone": 3e-4, "h2d": 1.05, "d2h": 1.1}
ROUNDTRIP = {"latency": 18e-6, "per_token": 3e-8, "per_copy": 7e-6, "bandwidth": 55e9}
PIPELINE = {"latency": 2e-4, "per_chunk": 3e-5, "read": 6e9, "copy": 5e10}
LINEAR = {"latency": 7e-6, "bandwidth": 2e10}
NODES = {"first": 4e-6, "per_node": 1.3e-6}
TOKENS = {"floor": 4e-6, "per_token": 2e-8, "sharpness": 4.0}


def tile(case):
    """What the program says of the kernel that it chose."""
    counts = [int(count) for count in str(case.get("counts", case.get("tokens", 1))).split(",")]
    mean = sum(counts) / len(counts)
    return {"token_step": next((step for step in (1, 4, 8, 16, 32, 64) if mean <= step), 128)}


def weights(case):
    return 6.0 * case["hidden"] * case["inter"]


#: (benchmark, fields of its lines, constants of all groups)
MACHINES = {
    "copy": ({}, COPY),
    "copy_host_kind": ({}, LINEAR),
    "copy_bidir": ({}, LINEAR),
    "copy_queue": ({}, QUEUE),
    "zero_copy": ({}, LINEAR),
    "launch": ({}, NODES),
    "router_roundtrip": ({}, ROUNDTRIP),
    "hbm": ({}, CACHED),
    "d2d": ({}, LINEAR),
    "router_permute": ({}, TOKENS),
    "dequant": ({}, LINEAR),
    "alloc": ({}, LINEAR),
    "file_to_gpu": ({}, PIPELINE),
    "dram": ({}, STREAM),
    "file": ({}, REQUESTS),
    "mmap": ({}, LINEAR),
    "stage": ({}, STREAM),
    "cpu_expert": ({"impl": lambda case: case["impl"], "bytes": weights}, CPU),
    "expert_ffn": ({"bytes": weights, "values": tile}, GPU),
    "grouped": (
        {"bytes": lambda case: weights(case) * case["groups"], "values": tile},
        GROUPED,
    ),
}


def median_error(rows, fits, side):
    constants = {(fit.bench, fit.group): fit.constants for fit in fits}
    chosen = [row for row in rows if row.split == side]
    errors = [abs(predicted_seconds(row, constants) / row.seconds - 1) for row in chosen]
    return float(np.median(errors))


@pytest.mark.parametrize("bench", MACHINES)
def test_held_out_rows_of_a_known_machine_are_predicted(bench):
    fields, constants = MACHINES[bench]
    rows = rows_of(bench, constants, noise=0.01, **fields)
    fits = fit_rows(rows, "test")
    assert fits
    assert median_error(rows, fits, "fit") < 0.02
    assert median_error(rows, fits, "holdout") < 0.03


@pytest.mark.parametrize(
    ("bench", "constants", "sure"),
    [
        ("copy", COPY, ["bandwidth", "per_segment"]),
        ("dram", STREAM, ["one_thread", "all_threads"]),
        ("file", REQUESTS, ["latency", "one_stream", "iops", "bandwidth"]),
        ("copy_queue", QUEUE, ["waits"]),
        ("expert_ffn", GPU, ["bandwidth", "rate"]),
        ("launch", NODES, ["first", "per_node"]),
    ],
)
def test_constants_are_recovered_within_five_percent(bench, constants, sure):
    fits = fit_rows(rows_of(bench, constants, noise=0.005, **MACHINES[bench][0]), "test")
    fullest = max(fits, key=lambda fit: fit.rows)
    for name in sure:
        if name not in fullest.assumed:
            assert fullest.constants[name] == pytest.approx(constants[name], rel=0.05), name


def test_factors_of_overlap_multiply():
    copies = rows_of("overlap", BESIDE, keep=lambda case: case["time"] == "copy")
    kernels = rows_of("overlap", KERNEL, keep=lambda case: case["time"] == "kernel")
    fits = fit_rows([*copies, *kernels], "test")
    assert median_error([*copies, *kernels], fits, "holdout") < 0.01
    of_copies = next(fit for fit in fits if fit.group == "copy h2d")
    assert of_copies.constants["hbm"] == pytest.approx(1.08, rel=0.01)
    assert of_copies.constants["both"] == pytest.approx(1.2, rel=0.01)


@settings(max_examples=15, deadline=None)
@given(latency=st.floats(1e-6, 5e-5), bandwidth=st.floats(2e9, 2e11), seed=st.integers(0, 99))
def test_lines_are_recovered_in_any_order(latency, bandwidth, seed):
    sizes = np.array([4.0**power * 4096 for power in range(9)])
    random = np.random.default_rng(seed)
    seconds = (latency + sizes / bandwidth) * np.exp(0.003 * random.standard_normal(9))
    fitted = fit_form(FORMS["linear"], {"bytes": sizes}, seconds)
    order = random.permutation(9)
    assert fit_form(FORMS["linear"], {"bytes": sizes[order]}, seconds[order]) == fitted
    assert fitted.constants["bandwidth"] == pytest.approx(bandwidth, rel=0.05)
    assert fitted.constants["latency"] == pytest.approx(latency, rel=0.05)


def test_held_out_and_flagged_rows_have_no_bearing():
    rows = rows_of("copy", COPY)
    clean = [row.model_dump() for row in fit_rows(rows, "test")]
    spoilt = []
    for index, row in enumerate(rows):
        if row.split == "holdout":
            times = row.time_us.model_copy(update={"p50": row.time_us.p50 * 100})
            row = row.model_copy(update={"time_us": times})
        spoilt.append(row)
        if index % 3 == 0:
            flag = ("noisy", "contended", "throttled", "wrong", "not_covered")[index % 5]
            times = row.time_us.model_copy(update={"p50": 1.0})
            spoilt.append(row.model_copy(update={"flags": [flag], "time_us": times, "split": "fit"}))
            spoilt.append(row.model_copy(update={"checked": False, "time_us": times, "split": "fit"}))
    assert [row.model_dump() for row in fit_rows(spoilt, "test")] == clean


def test_a_result_without_quiet_rows_is_refused():
    rows = [row.model_copy(update={"flags": ["contended"]}) for row in rows_of("stage", STREAM)]
    with pytest.raises(MicrobenchError, match="flags seen: contended"):
        card_fields(result_of(rows), "0" * 64, "machine")


def test_skew_is_in_the_counts():
    assert max(token_counts("zipf1.4", 64, 512)) > 4 * max(token_counts("uniform", 64, 512))
