"""Who decodes together."""

import numpy as np
import pytest
from builders import trace_of

from moesim.policies import api
from moesim.scenario.workload import _grouped
from moesim.traces.steps import closed_loop
from moesim.traces.trace import DECODE


def groups(name, paths, batch, **params):
    policy = api.load("batching", name, params)
    return policy.module.group(policy.params, np.array(paths), batch)


@pytest.mark.parametrize("name", api.names("batching"))
@pytest.mark.parametrize("batch", [1, 3])
def test_every_request_decodes_each_of_its_tokens_once_and_in_order(name, batch):
    rng = np.random.default_rng(1)
    request = np.repeat(np.arange(9), [5, 2, 7, 4, 6, 3, 5, 8, 2])
    trace = trace_of([[rng.permutation(6)[:2]] for _ in request], num_experts=6, requests=request, prompt=1)
    policy = api.load("batching", name)
    pool = policy.params.pool

    def group(rows):
        found = _grouped(trace, policy, batch, rows)
        assert all(0 < len(places) <= batch for places in found)
        return found

    steps = closed_loop(trace, list(range(9)), batch * pool, group=group)
    assert sorted(steps.row.tolist()) == list(range(len(request)))
    assert steps.tokens[steps.phase == DECODE].max() <= batch
    for number in range(9):
        rows = steps.row[request[steps.row] == number]
        assert (np.diff(rows) > 0).all()


def test_expertflow_puts_tokens_with_alike_paths_together():
    alike = [[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert groups("expertflow", alike, 2) == [[0, 2], [1, 3]]
    assert groups("expertflow", alike, 4) == [[0, 1, 2, 3]]


def test_readme_fills_a_batch_from_the_longest_queue_and_lets_the_others_wait():
    paths = [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert groups("readme", paths, 2) == [[1, 2]]
    assert groups("readme", paths, 3) == [[1, 2, 4]]
    assert groups("readme", paths, 4) == [[0, 1, 2, 4]]


def test_arrival_takes_turns():
    assert groups("arrival", np.zeros((5, 3)), 2, pool=3) == [[0, 1], [2, 3], [4]]
