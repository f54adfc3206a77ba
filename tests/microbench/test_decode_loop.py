"""The decode loop: the program's own cache and queue, in virtual time, against the simulator's engine."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from microbench_builders import line

from moesim.engine.offload import simulate
from moesim.errors import MicrobenchError
from moesim.microbench.decode_loop import LoopSeconds, loop_seconds, loop_setup, num_experts, predict_loop, routing
from moesim.microbench.runner import row_of
from moesim.microbench.suite import bench_named
from moesim.microbench.validation import loop_errors
from moesim.traces import load_trace

TRACE = Path(__file__).parents[2] / "traces" / "moe-32x4.npz"
CONSTANTS = {
    ("router_roundtrip", "all"): {"latency": 20e-6, "per_token": 1e-8, "per_copy": 5e-6, "bandwidth": 50e9},
    ("expert_ffn", "own_gemv bf16"): {"launch": 4e-6, "bandwidth": 2.5e12, "rate": 3e13, "sharpness": 4.0},
    ("copy", "h2d"): {"latency": 6e-6, "per_segment": 2e-6, "bandwidth": 55e9, "ramp": 2e-6, "knee": 1e5},
}


def case_of(slots, prefetch, steps=24, chunk=0):
    return {"slots": slots, "prefetch": prefetch, "chunk": chunk, "hidden": 2048, "inter": 768, "steps": steps}


def loop(emulator, case, seconds):
    """Labels, end of each visit and stall of each, as the program's cache has them in virtual time."""
    ids = np.ascontiguousarray(routing()[: case["steps"]], dtype=np.int32)
    tokens, layers, k = ids.shape
    labels, ends, stalls = np.zeros(ids.size, np.int32), np.zeros(tokens * layers), np.zeros(tokens * layers)
    times = (ctypes.c_double(value) for value in (seconds.before_s, seconds.expert_s, seconds.copy_s))
    arrays = [array.ctypes.data_as(ctypes.c_void_p) for array in (ids, labels, ends, stalls)]
    sizes = (tokens, layers, num_experts(), k, case["slots"], case["prefetch"])
    emulator.decode_loop(arrays[0], *sizes, *times, *arrays[1:])
    return labels, ends, stalls


@pytest.mark.parametrize("prefetch", [0, 1])
@pytest.mark.parametrize("slots", [48, 96, 192, 384])
@pytest.mark.parametrize("copy_s", [8.13e-6, 37.7e-6, 181e-6])
def test_the_programs_cache_does_what_the_engine_does(emulator, slots, prefetch, copy_s):
    case, seconds = case_of(slots, prefetch), LoopSeconds(before_s=21.3e-6, expert_s=7.1e-6, copy_s=copy_s)
    labels, ends, stalls = loop(emulator, case, seconds)
    outcome = simulate(loop_setup(case, seconds))
    np.testing.assert_array_equal(labels, outcome.label)
    np.testing.assert_allclose(ends, outcome.visit_end_s, rtol=1e-9)
    np.testing.assert_allclose(stalls, outcome.stall_s.sum(axis=1), atol=1e-12)


def measured(emulator, case):
    """A row as the program prints it, on a machine with the constants above."""
    labels, ends, stalls = loop(emulator, case, loop_seconds(case, CONSTANTS))
    timeline = {"labels": labels.tolist(), "stall_us": (stalls * 1e6).tolist(), "layer_us": []}
    return row_of(bench_named("replay"), line(case, [ends[-1]] * 5, impl="loop", timeline=timeline))


@pytest.mark.parametrize("chunk", [0, 1 << 20])
@pytest.mark.parametrize("prefetch", [0, 1])
def test_a_machine_with_known_constants_is_predicted_exactly(emulator, prefetch, chunk):
    found = predict_loop(measured(emulator, case_of(96, prefetch, chunk=chunk)), CONSTANTS)
    assert found.labels_agree == 1
    assert found.error_percent == pytest.approx(0, abs=1e-3)
    assert found.predicted_stall == pytest.approx(found.measured_stall, abs=1e-5)  # six digits
    assert 0.3 < found.predicted_stall < 1


def test_a_slower_link_than_the_cards_shows_as_an_error(emulator):
    row = measured(emulator, case_of(96, 0))
    slower = CONSTANTS | {("copy", "h2d"): CONSTANTS["copy", "h2d"] | {"bandwidth": 27.5e9}}
    found = predict_loop(row, slower)
    assert found.error_percent > 20
    assert found.labels_agree == 1  # without prefetch, what is there does not depend on time


def test_a_card_without_the_constants_predicts_nothing(emulator):
    assert predict_loop(measured(emulator, case_of(96, 0)), {}) is None


@pytest.mark.parametrize("timeline", [None, {"labels": [0]}, {"labels": [0, 1], "stall_us": [1.0]}])
def test_a_row_without_its_timeline_is_refused(timeline):
    row = row_of(bench_named("replay"), line(case_of(96, 0), [0.1], impl="loop", timeline=timeline))
    with pytest.raises(MicrobenchError, match="timeline"):
        predict_loop(row, CONSTANTS)


def test_the_routing_is_of_the_bundled_trace():
    trace = load_trace(TRACE)
    rows = np.flatnonzero((np.asarray(trace.request) == 0) & (np.asarray(trace.phase) == 1))[:64]
    np.testing.assert_array_equal(routing(), np.asarray(trace.experts)[rows])
    assert num_experts() == trace.card.num_experts


def test_the_loops_targets(emulator):
    exact = predict_loop(measured(emulator, case_of(96, 0)), CONSTANTS)
    slower = exact.model_copy(
        update={"measured_s": exact.measured_s * 1.25, "measured_stall": exact.measured_stall - 0.1}
    )
    assert loop_errors([]) is None
    assert loop_errors([exact, exact, slower]).verdicts == ("reached", "reached")
    found = loop_errors([exact, slower, slower])
    assert (found.rows, found.total, found.stall) == (3, 20.0, 10.0)
    assert found.verdicts == ("missed", "missed")
