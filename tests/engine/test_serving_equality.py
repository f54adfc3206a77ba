"""The compiled serving engine against the SimPy one, on anything that they can run: the same times, to the last bit."""

import numpy as np
import pytest
from serving_builders import random_setup

from moesim.engine.serving import simulate_serving
from moesim.replay.serving import serve


def run_both(setup):
    batches = []
    outcome = serve(setup, batches.append)
    names = ("ident", "prompt", "output", "preempted", "arrival_s", "scheduled_s", "first_token_s", "last_token_s")
    columns = {name: np.concatenate([getattr(batch, name) for batch in batches] or [[]]).tolist() for name in names}
    return outcome, columns, simulate_serving(setup)


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_both_engines_give_the_same_times(first):
    for seed in range(first, first + 20):
        outcome, columns, told = run_both(random_setup(seed))
        expected = {
            "ident": [request.ident for request in told.requests],
            "prompt": [request.prompt for request in told.requests],
            "output": [request.output for request in told.requests],
            "preempted": [request.preempted for request in told.requests],
            "arrival_s": [request.arrival_s for request in told.requests],
            "scheduled_s": [request.scheduled_s for request in told.requests],
            "first_token_s": [request.token_s[0] for request in told.requests],
            "last_token_s": [request.token_s[-1] for request in told.requests],
        }
        assert columns == expected, seed
        assert outcome.rejected == told.rejected
        assert outcome.steps.tolist() == told.steps
        assert outcome.preemptions == sum(request.preempted for request in told.requests)
        gaps = np.concatenate([np.diff(request.token_s) for request in told.requests] or [[]])
        assert outcome.gaps == len(gaps)
        assert outcome.gap_sum_s == pytest.approx(gaps.sum())
