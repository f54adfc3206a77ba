"""A request's tokens follow a request of the trace, and go on within its domain."""

import numpy as np
from builders import trace_of

from moesim.scenario.serving.routing import routed
from moesim.setup.serving import WORD_BITS
from moesim.traces.card import Domain


def experts_of(mask):
    return {word * WORD_BITS + bit for word, bits in enumerate(mask.tolist()) for bit in range(64) if bits >> bit & 1}


def random_trace(num_experts=40, requests=6, tokens=9, layers=3, k=2, prompt=4):
    rng = np.random.default_rng(3)
    rows = [[rng.permutation(num_experts)[:k] for _ in range(layers)] for _ in range(requests * tokens)]
    return trace_of(rows, num_experts=num_experts, requests=np.repeat(np.arange(requests), tokens), prompt=prompt)


def row_of(found, source, token, prompt):
    routing = found.routing
    if token < prompt:
        low, start, high = routing.prompt_low, routing.prompt_start, routing.prompt_high
    else:
        low, start, high, token = routing.output_low, routing.output_start, routing.output_high, token - prompt
    return int(low[source] + (start[source] - low[source] + token) % (high[source] - low[source]))


def test_rows_hold_the_experts_of_the_request_that_is_followed():
    trace = random_trace()
    found = routed(trace, ranks=4)
    for source in range(6):
        for token in range(9):
            row, original = row_of(found, source, token, 4), 9 * source + token
            for layer in range(3):
                wanted = set(trace.experts[original, layer].tolist())
                assert experts_of(found.routing.mask[row, layer]) == wanted
                on_rank = [sum(expert // 10 == rank for expert in wanted) for rank in range(4)]
                assert found.routing.pairs[row, layer].tolist() == on_rank
    assert [experts_of(mask) for mask in found.routing.ranks] == [set(range(10 * r, 10 * r + 10)) for r in range(4)]


def test_a_longer_request_goes_on_with_the_next_of_its_domain():
    from dataclasses import replace

    trace = random_trace()
    domain = np.repeat([0, 1, 0, 1, 1, 0], 9).astype(np.int32)
    card = trace.card.model_copy(update={"domains": [Domain(name="a"), Domain(name="b")]})
    found = routed(replace(trace, domain=domain, card=card), ranks=1)
    # request 0 has 5 output rows; then come those of requests 2, 5 and 0 again
    for token, (source, place) in enumerate([(0, 0), (0, 4), (2, 0), (5, 0), (0, 0)]):
        asked = [0, 4, 5, 10, 15][token]
        row = row_of(found, 0, 4 + asked, 4)
        assert experts_of(found.routing.mask[row, 0]) == set(trace.experts[9 * source + 4 + place, 0].tolist())


def test_repeated_layers_are_kept_once():
    trace = random_trace(layers=1)
    from moesim.transforms import stand_in

    found = routed(stand_in(trace, 7), ranks=1)
    assert found.routing.mask.shape[1] == 1
    assert found.layers.tolist() == [7.0]


def test_a_trace_without_prefill_says_so():
    found = routed(random_trace(prompt=0), ranks=1)
    assert any("no prefill rows" in told for told in found.warnings)
    assert (found.routing.prompt_high > found.routing.prompt_low).all()
