"""What is proposed, worked out by hand."""

import numpy as np
from builders import trace_of, visits_for

from moesim.policies import api


def proposed(name, rows, *, num_experts=4, requests=None, prompt=0, weights=None, batch=1, **params):
    """{(step, layer): [(layer, expert) of each proposal, most wanted first]}, and the targets are checked."""
    trace = trace_of(rows, num_experts=num_experts, requests=requests, prompt=prompt)
    if weights is not None:
        object.__setattr__(trace, "weights", np.asarray(weights, np.float16))
    visits = visits_for(trace, batch=batch)
    policy = api.load("prefetch", name, params)
    found = policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0))
    answer = {}
    for visit in range(visits.num_visits):
        span = slice(found.start[visit], found.start[visit + 1])
        layers, experts = np.divmod(found.key[span], num_experts)
        step, layer = divmod(visit, visits.num_layers)
        assert (found.target[span] - visit == layers - layer).all()
        if span.stop > span.start:
            answer[step, layer] = list(zip(layers.tolist(), experts.tolist(), strict=True))
    return answer


ROWS = [[[0], [1], [2]], [[0], [1], [3]]]


def test_fetch_all_names_every_expert_of_the_next_layer():
    assert proposed("fetch-all", ROWS[:1]) == {
        (0, 0): [(1, 0), (1, 1), (1, 2), (1, 3)],
        (0, 1): [(2, 0), (2, 1), (2, 2), (2, 3)],
    }
    assert proposed("fetch-all", ROWS[:1], lookahead=2) == {(0, 0): [(2, 0), (2, 1), (2, 2), (2, 3)]}


def test_temporal_repeats_the_request_s_previous_token():
    assert proposed("temporal", ROWS) == {(1, 0): [(1, 1)], (1, 1): [(2, 2)]}
    # Two requests side by side: each repeats itself. A prompt's tokens run together and repeat nothing.
    rows = [[[0], [0]], [[1], [1]], [[2], [2]], [[3], [3]]]
    assert proposed("temporal", rows, requests=[0, 0, 1, 1], batch=2) == {(1, 0): [(1, 0), (1, 2)]}
    assert proposed("temporal", rows, prompt=3) == {(1, 0): [(1, 2)]}


def test_transition_counts_what_followed():
    # Steps 0-2: expert 0 of layer 0 was followed by 1, 2, 1. At step 3: P = 2/3 and 1/3.
    rows = [[[0], [1]], [[0], [2]], [[0], [1]], [[0], [3]]]
    assert proposed("transition", rows, budget=2) == {
        (1, 0): [(1, 1)],
        (2, 0): [(1, 1), (1, 2)],
        (3, 0): [(1, 1), (1, 2)],
    }
    # By default as many as the visit uses itself.
    assert proposed("transition", rows)[3, 0] == [(1, 1)]
    # Two experts: 0 was followed by {1, 2} always; 3 once by {1, 0}. Scores: 1: 2, 2: 1, 0: 1.
    rows = [[[0, 1], [1, 2]], [[3, 2], [1, 0]], [[0, 3], [3, 2]]]
    assert proposed("transition", rows, budget=3)[2, 0] == [(1, 1), (1, 0), (1, 2)]


def test_edgemoe_looks_two_layers_back():
    # After (0, 1) came 2; after (3, 1) came 3. One layer back they look the same.
    rows = [[[0], [1], [2]], [[3], [1], [3]], [[0], [1], [0]], [[3], [1], [0]]]
    assert proposed("edgemoe", rows) == {(2, 1): [(2, 2)], (3, 1): [(2, 3)]}


def test_edgemoe_by_sets_and_by_first_expert():
    # The set is the same in any order; the heaviest expert differs.
    rows = [[[0, 1], [1, 0], [2, 3]], [[1, 0], [0, 1], [0, 1]]]
    weights = [[[0.9, 0.1]] * 3, [[0.9, 0.1]] * 3]
    assert proposed("edgemoe", rows) == {(1, 1): [(2, 2), (2, 3)]}
    assert proposed("edgemoe", rows, choice="first", weights=weights) == {}
    swapped = [weights[0], [[0.1, 0.9]] * 3]
    assert proposed("edgemoe", rows, choice="first", weights=swapped) == {(1, 1): [(2, 2), (2, 3)]}


def test_pre_gated_is_exact_but_for_the_first_layers():
    assert proposed("pre-gated", ROWS) == {(0, 0): [(1, 1)], (0, 1): [(2, 2)], (1, 0): [(1, 1)], (1, 1): [(2, 3)]}
    assert proposed("pre-gated", ROWS, level=2) == {(0, 0): [(2, 2)], (1, 0): [(2, 3)]}
    assert api.load("prefetch", "pre-gated").models_future


def test_known_ahead_names_the_whole_step_nearest_first():
    assert proposed("known-ahead", ROWS) == {(0, 0): [(1, 1), (2, 2)], (1, 0): [(1, 1), (2, 3)]}
    assert proposed("known-ahead", ROWS, ahead=1) == proposed("pre-gated", ROWS)
    assert api.load("prefetch", "known-ahead").models_future


def test_activation_matching_follows_the_request_most_alike():
    # Request 0 uses 0 -> 1 -> 2, request 1 uses 3 -> 2 -> 1. The third begins like request 1.
    rows = [[[0], [1], [2]], [[3], [2], [1]], [[3], [1], [1]]]
    found = proposed("activation-matching", rows, requests=[0, 1, 2])
    # Request 1 has nobody but request 0 to follow. At layer 1 the third is as much like 0 (its 1) as like 1 (its 3);
    # the first of equals is followed.
    assert found == {(1, 0): [(1, 1)], (1, 1): [(2, 2)], (2, 0): [(1, 2)], (2, 1): [(2, 2)]}
    # Two layers ahead, the nearer weighs more: 1 - 1/3 against 1 - 2/3.
    assert proposed("activation-matching", rows, requests=[0, 1, 2], horizon=2)[2, 0] == [(1, 2), (2, 1)]
    # Nobody has ended: nothing is proposed.
    assert proposed("activation-matching", rows) == {}


def test_activation_matching_forgets_the_oldest():
    rows = [[[0], [1]], [[3], [2]], [[0], [0]]]
    assert proposed("activation-matching", rows, requests=[0, 1, 2], memory=1)[2, 0] == [(1, 2)]
    assert proposed("activation-matching", rows, requests=[0, 1, 2])[2, 0] == [(1, 1)]


def test_fiddler_takes_the_faster_side():
    def decided(rule, tokens, fetch_s, cpu_s, gpu_s):
        policy = api.load("on_miss", "fiddler", {"rule": rule})
        return policy.module.decide(policy.module.initial_state(policy.params), tokens, fetch_s, cpu_s, gpu_s)

    seconds = [(2.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 0.5), (1.0, 2.0, 0.5)]
    assert [decided("costs", 1, *each) for each in seconds] == [api.CPU, api.FETCH, api.CPU, api.FETCH]
    # 7 for each token on the CPU, 70 for any number on the GPU, whatever they cost here
    assert [decided("constants", tokens, 1.0, 9.0, 1.0) for tokens in (1, 9, 10)] == [api.CPU, api.CPU, api.FETCH]


def test_path_predictor_that_is_always_right_names_the_whole_step_at_its_first_layer():
    rows = [[[0], [1], [2]]]
    assert chosen("path-predictor", rows, accuracy=1.0) == {(0, 0): [(1, 1), (2, 2)]}
    assert chosen("path-predictor", rows, accuracy=1.0, ahead=1) == {(0, 0): [(1, 1)], (0, 1): [(2, 2)]}
    wrong = chosen("path-predictor", rows, accuracy=[1.0, 0.0, 1.0])
    assert wrong[0, 0][1] == (2, 2)
    assert wrong[0, 0][0] != (1, 1)


def test_fmoe_repeats_what_followed_the_most_alike_map():
    weights = [[[1.0]] * 4] * 3
    rows = [[[0], [1], [2], [3]], [[3], [2], [1], [0]], [[0], [1], [3], [2]]]
    found = chosen("fmoe", rows, weights=weights, distance=1)
    # the third token resembles the first: it is sent after experts 1 and 2 of the next layers, then 3
    assert found[2, 0] == [(1, 1)]
    assert found[2, 1] == [(2, 2)]


def test_hobbit_asks_for_low_precision_where_earlier_weights_say_it_will_do():
    rows = [[[0, 1], [2, 3]]] * 3
    trace = trace_of(rows, num_experts=4, lookahead={1: [[[2, 3], [-1, -1]]] * 3}, weights=[[[0.75, 0.25]] * 2] * 3)
    visits = visits_for(trace)
    policy = api.load("prefetch", "hobbit", {"depth": 1})
    found = policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0))
    assert found.key.tolist() == [6, 7] * 3
    assert found.low.tolist() == [False, False, False, True, False, True]  # nothing was seen before the first step


def chosen(name, rows, **params):
    """As ``proposed``, targets unchecked: they are the layers that are named."""
    weights = params.pop("weights", None)
    trace = trace_of(rows, num_experts=4, weights=weights)
    visits = visits_for(trace)
    policy = api.load("prefetch", name, params)
    found = policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0))
    answer = {}
    for visit in range(visits.num_visits):
        span = slice(found.start[visit], found.start[visit + 1])
        if span.stop > span.start:
            pairs = np.divmod(found.key[span], 4)
            assert (found.target[span] % visits.num_layers == pairs[0]).all()
            answer[divmod(visit, visits.num_layers)] = list(zip(*(column.tolist() for column in pairs), strict=True))
    return answer
