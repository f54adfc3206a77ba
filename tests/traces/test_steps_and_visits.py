"""Steps and visits, worked out by hand."""

import numpy as np
import pytest
from builders import trace_of, visits_for

from moesim.errors import TraceError
from moesim.traces.steps import closed_loop
from moesim.traces.trace import DECODE, PREFILL
from moesim.traces.visits import next_use

REQUESTS = [0, 0, 0, 1, 1, 2]
ROWS = [[[token % 3, 3]] for token in range(6)]


def steps_of(**workload):
    trace = trace_of(ROWS, num_experts=4, prompt=1, requests=REQUESTS)
    steps = closed_loop(trace, trace.request_ids.tolist(), **workload)
    groups = np.split(steps.row, steps.row_start[1:-1])
    return steps, [(int(phase), rows.tolist()) for phase, rows in zip(steps.phase, groups, strict=True)]


def test_one_user_runs_requests_one_after_the_other():
    steps, groups = steps_of()
    assert groups == [(PREFILL, [0]), (DECODE, [1]), (DECODE, [2]), (PREFILL, [3]), (DECODE, [4]), (PREFILL, [5])]
    assert steps.predecessor.tolist() == [-1, 0, 1]


def test_two_users_decode_together_and_a_free_slot_admits_the_next():
    steps, groups = steps_of(batch=2)
    assert groups == [(PREFILL, [0]), (PREFILL, [3]), (DECODE, [1, 4]), (PREFILL, [5]), (DECODE, [2])]
    assert steps.predecessor.tolist() == [-1, -1, 1]


def test_output_and_prompt_can_be_cut():
    # the first output token comes from the prefill, so one decode token makes two
    _, groups = steps_of(max_output=2)
    assert groups == [(PREFILL, [0]), (DECODE, [1]), (PREFILL, [3]), (DECODE, [4]), (PREFILL, [5])]
    trace = trace_of(ROWS, num_experts=4, prompt=3, requests=[0] * 6)
    cut = closed_loop(trace, [0], max_prompt=2, prefill_chunk=1)
    assert cut.row.tolist() == [1, 2, 3, 4, 5]
    assert cut.phase.tolist() == [PREFILL, PREFILL, DECODE, DECODE, DECODE]


def test_no_token_is_an_error():
    trace = trace_of(ROWS, num_experts=4, prompt=1, requests=REQUESTS)
    with pytest.raises(TraceError, match="selects no token"):
        closed_loop(trace, [])


def test_lookups_are_ordered_by_first_use_in_decode_and_by_last_use_in_prefill():
    rows = [[[2, 1]], [[1, 0]], [[2, 3]]]
    prefill = visits_for(trace_of(rows, num_experts=4, prompt=3))
    assert prefill.activation_key.tolist() == [2, 1, 1, 0, 2, 3]
    assert prefill.lookup_key.tolist() == [1, 0, 2, 3]
    assert prefill.lookup_tokens.tolist() == [2, 1, 2, 1]
    decode = visits_for(trace_of(rows, num_experts=4, requests=[0, 1, 2]), batch=3)
    assert decode.lookup_key.tolist() == [2, 1, 0, 3]
    assert decode.activation_lookup.tolist() == [0, 1, 1, 2, 0, 3]


def test_keys_count_layers_and_missing_experts_are_left_out():
    visits = visits_for(trace_of([[[0, 1], [1, -1]], [[-1, -1], [0, 1]]], num_experts=2))
    assert visits.lookup_key.tolist() == [0, 1, 3, 2, 3]
    assert visits.lookup_start.tolist() == [0, 2, 3, 3, 5]
    assert visits.starts_request.tolist() == [True, False]


def test_next_use():
    assert next_use(np.array([5, 3, 5, 5, 3])).tolist() == [2, 4, 3, 5, 5]
