"""Requests of other lengths: rows of the source, in order, prompt on prompt and output on output."""

from dataclasses import replace

import numpy as np
import pytest
from builders import trace_of

from moesim.errors import TraceError
from moesim.traces.card import Domain
from moesim.traces.checks import check
from moesim.traces.trace import DECODE, PREFILL
from moesim.transforms import stretch


def numbered(domains=None):
    """Four requests of 3 prompt and 2 output rows; the first expert of row r is r modulo 32."""
    rows = [[[row % 32, (row + 1) % 32]] for row in range(20)]
    trace = trace_of(rows, num_experts=32, requests=np.repeat(np.arange(4), 5), prompt=3)
    if domains is None:
        return trace
    card = trace.card.derived("named", domains=[Domain(name="a"), Domain(name="b")])
    return replace(trace, card=card, domain=np.repeat(np.array(domains, dtype=np.int8), 5))


def first_experts(trace, request):
    return trace.experts[trace.rows_of(request), 0, 0].tolist()


def test_a_request_goes_on_with_the_next_one_and_round():
    longer = stretch(numbered(), [2, 7], [3, 6], [1, 3])
    check(longer)
    assert first_experts(longer, 0) == [5, 6, 8, 9]
    # prompt rows 15 16 17, then request 0's 0 1 2, then request 1's 5; output rows 18 19, then 3 4, then 8
    assert first_experts(longer, 1) == [15, 16, 17, 0, 1, 2, 5, 18, 19, 3, 4, 8]
    assert longer.phase[longer.rows_of(1)].tolist() == [PREFILL] * 7 + [DECODE] * 5
    assert longer.position[longer.rows_of(1)].tolist() == list(range(12))


def test_only_requests_of_the_same_domain_go_on():
    longer = stretch(numbered([0, 1, 0, 1]), [8], [2], [2])
    assert first_experts(longer, 0) == [10, 11, 12, 0, 1, 2, 10, 11, 13]


@pytest.mark.parametrize(("prompts", "outputs", "sources"), [([], [], []), ([0], [1], [0]), ([1], [1], [4])])
def test_what_cannot_be_is_refused(prompts, outputs, sources):
    with pytest.raises(TraceError):
        stretch(numbered(), prompts, outputs, sources)
