"""Serving against queueing theory and arithmetic: closed forms, conservation, Little's law, times by hand."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from serving_builders import flat_costs, no_routing, random_costs, random_routing, random_setup

from moesim.engine.serving import simulate_serving
from moesim.replay import serving as serving_replay
from moesim.replay.serving import serve
from moesim.setup.serving import Limits, Requests, Routing, ServingSetup


def requests(arrival_s, prompt=1, output=1):
    arrival_s = np.asarray(arrival_s, dtype=float)
    count = len(arrival_s)
    prompt, output = (np.broadcast_to(np.asarray(value, dtype=np.int64), count).copy() for value in (prompt, output))
    return Requests(arrival_s, prompt, output, np.zeros(count, dtype=np.int64))


def setup_of(stretch, costs, **limits):
    limits = {"tokens": 64, "requests": 8, "block_tokens": 16, "blocks": 10_000} | limits
    return ServingSetup(costs, no_routing(), Limits(**limits), lambda: iter([stretch]))


def run(setup):
    batches = []
    outcome = serve(setup, batches.append)
    return outcome, {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("ident", "arrival_s", "scheduled_s", "first_token_s", "last_token_s", "preempted", "replica")
    }


def test_three_requests_by_hand():
    # Steps of 1 s. A (prompt 3, 3 tokens) comes at 0 and B (prompt 2, 1 token) at 0.5: it waits for A's first step.
    # C comes at 10, when nothing runs.
    for engine in (simulate_serving, None):
        setup = setup_of(requests([0.0, 0.5, 10.0], [3, 2, 1], [3, 1, 2]), flat_costs(1.0))
        if engine is None:
            _, ended = run(setup)
            found = {
                i: (s, f, e)
                for i, s, f, e in zip(
                    *(ended[n].tolist() for n in ("ident", "scheduled_s", "first_token_s", "last_token_s")), strict=True
                )
            }
        else:
            found = {r.ident: (r.scheduled_s, r.token_s[0], r.token_s[-1]) for r in engine(setup).requests}
        assert found == {0: (0.0, 1.0, 3.0), 1: (1.0, 2.0, 2.0), 2: (10.0, 11.0, 12.0)}


def test_a_long_prompt_goes_in_chunks_while_others_decode():
    # 8 tokens a step: A decodes from 1 s on; B's prompt of 20 comes at 0.5 and gets 7 a step beside it: 7, 7, 6.
    setup = setup_of(requests([0.0, 0.5], [4, 20], [6, 2]), flat_costs(1.0, tokens=8), tokens=8)
    _, ended = run(setup)
    order = np.argsort(ended["ident"])
    assert ended["first_token_s"][order].tolist() == [1.0, 4.0]
    assert ended["last_token_s"][order].tolist() == [6.0, 5.0]


def test_without_blocks_the_last_one_gives_way_and_starts_again():
    # 5 blocks of one token. A and B (prompt 2, 3 tokens) hold 2 blocks each; both want a third at 1 s, and one is
    # left: B gives way, and computes its prompt and first token anew (3 tokens) when A has ended at 3 s.
    setup = setup_of(requests([0.0, 0.0], 2, 3), flat_costs(1.0), block_tokens=1, blocks=5)
    outcome, ended = run(setup)
    assert outcome.preemptions == 1
    assert dict(zip(ended["ident"].tolist(), ended["last_token_s"].tolist(), strict=True)) == {0: 3.0, 1: 5.0}
    assert outcome.computed_tokens == 2 + 2 + 3


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_at_a_time_with_constant_service_is_m_d_1(load):
    rng = np.random.default_rng(round(load * 10))
    arrivals = np.cumsum(rng.exponential(1 / load, 400_000))
    _, ended = run(setup_of(requests(arrivals), flat_costs(1.0), requests=1))
    waited = (ended["scheduled_s"] - ended["arrival_s"]).mean()
    assert waited == pytest.approx(load / (2 * (1 - load)), rel=0.03)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (4, 0.8), (8, 0.7)])
def test_places_with_exponential_service_are_m_m_c(servers, load):
    # A step takes 1 s whatever is in it, and a request about 100 of them: places are servers, and its time exponential.
    rng = np.random.default_rng(10 + servers)
    count, mean = 80_000, 100.0
    arrivals = np.cumsum(rng.exponential(mean / (load * servers), count))
    output = rng.geometric(1 / mean, count)
    _, ended = run(setup_of(requests(arrivals, 1, output), flat_costs(1.0), requests=servers, blocks=10**6))
    offered = load * servers
    last = offered**servers / math.factorial(servers) / (1 - load)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)  # Erlang C
    expected = waits * mean / (servers * (1 - load))
    # whoever comes during a step waits for its end: half a step, unless nothing runs
    assert (ended["scheduled_s"] - ended["arrival_s"]).mean() == pytest.approx(expected + 0.5, rel=0.08)


def test_closed_loop_users_cycle_as_arithmetic_says():
    # Four users think 10 s and are served in one step of 1 s: with no waiting, a request each 11 s.
    _, ended = run(setup_of(requests([10.0] * 40), flat_costs(1.0), users=4))
    assert ended["last_token_s"][-1] == 110.0
    assert np.allclose(ended["last_token_s"] - ended["arrival_s"], 1.0)


def test_prefill_and_decode_apart_by_hand():
    # Prefill takes a step of 1 s, the KV cache of 4 tokens 0.5 + 4 * 0.25 = 1.5 s, two more tokens 2 s.
    setup = setup_of(requests([0.0], 4, 3), flat_costs(1.0), decoders=1, transfer_latency_s=0.5, transfer_token_s=0.25)
    _, ended = run(setup)
    assert (ended["first_token_s"][0], ended["last_token_s"][0], ended["replica"][0]) == (1.0, 4.5, 1)


def test_the_least_loaded_replica_takes_a_request():
    # Long and short ones in turn: round robin sends all long ones to one replica.
    output = np.where(np.arange(40) % 2 == 0, 60, 1)
    stretch = requests(np.arange(40) * 20.0, 1, output)
    by_turn = run(setup_of(stretch, flat_costs(1.0), replicas=2, requests=1))[1]
    by_load = run(setup_of(stretch, flat_costs(1.0), replicas=2, requests=1, least_loaded=True))[1]
    mean = {
        name: (ended["last_token_s"] - ended["arrival_s"]).mean()
        for name, ended in (("turn", by_turn), ("load", by_load))
    }
    assert mean["load"] < 0.8 * mean["turn"]


def test_what_can_never_fit_is_turned_away_and_counted():
    setup = setup_of(requests([0.0, 0.0], [4, 400], 1), flat_costs(1.0), block_tokens=16, blocks=4)
    outcome, ended = run(setup)
    assert (outcome.rejected, outcome.finished, ended["ident"].tolist()) == (1, 1, [0])


def test_nothing_is_lost_early_or_overfull_on_random_setups():
    for seed in range(60):
        setup = random_setup(seed)
        outcome, ended = run(setup) if sum(len(s.arrival_s) for s in setup.requests()) else (None, None)
        count = sum(len(stretch.arrival_s) for stretch in setup.requests())
        assert outcome.finished + outcome.rejected == count
        assert outcome.arrived == count
        if outcome.finished:
            assert (ended["arrival_s"] <= ended["scheduled_s"]).all()
            assert (ended["scheduled_s"] < ended["first_token_s"]).all()
            assert (ended["first_token_s"] <= ended["last_token_s"]).all()
            assert sorted(set(ended["ident"].tolist())) == sorted(ended["ident"].tolist())
        replicas = setup.limits.replicas + setup.limits.decoders
        assert outcome.most_blocks <= replicas * setup.limits.blocks
        assert (outcome.busy_s <= outcome.end_s * (1 + 1e-9)).all()
        # the use of the tables gives the time that the replicas were busy
        costs, use = setup.costs, outcome.use
        pairs = zip(
            (costs.dense_s, costs.head_s, costs.host_s, costs.decode_s, costs.prefill_s),
            (use.dense, use.head, use.host, use.decode, use.prefill),
            strict=True,
        )
        without_experts = sum(float((table * used).sum()) for table, used in pairs)
        experts = float((costs.expert_s * use.expert).sum())
        assert without_experts + experts == pytest.approx(outcome.busy_s.sum(), rel=1e-3)
        # Little's law: the area under the number in the system is the sum of the latencies
        assert outcome.area_s == pytest.approx(
            (ended["last_token_s"] - ended["arrival_s"]).sum() if outcome.finished else 0.0
        )


def test_a_stretch_may_end_anywhere():
    rng = np.random.default_rng(5)
    whole = requests(np.cumsum(rng.exponential(1.0, 3000)), rng.integers(1, 40, 3000), rng.integers(1, 20, 3000))
    setup = setup_of(whole, flat_costs(0.05))

    def in_stretches():
        for first in range(0, 3000, 7):
            yield Requests(*(getattr(whole, n)[first : first + 7] for n in ("arrival_s", "prompt", "output", "source")))

    assert (
        run(setup)[1]["last_token_s"].tolist() == run(replace(setup, requests=in_stretches))[1]["last_token_s"].tolist()
    )


def test_a_long_run_is_quick_and_needs_no_more_memory_than_what_is_in_the_system():
    # 256 tokens an answer, 32 of them at once; 6 layers of 64 experts, top 4. Target: 5,000 requests per CPU second.
    rng = np.random.default_rng(0)
    tokens, places, count = 512, 32, 20_000
    costs = random_costs(rng, tokens, places, 64, 4, 6)
    scale = 1e-4  # so that this load does not saturate
    names = ("dense_s", "head_s", "host_s", "decode_s", "prefill_s", "expert_s")
    costs = replace(costs, **{name: getattr(costs, name) * scale for name in names})
    stretch = requests(np.cumsum(rng.exponential(0.02, count)), 200, 256)

    def stretches():
        for first in range(0, count, 1000):
            columns = ("arrival_s", "prompt", "output", "source")
            yield Requests(*(getattr(stretch, name)[first : first + 1000] for name in columns))

    limits = Limits(tokens=tokens, requests=places, block_tokens=16, blocks=10_000)
    setup = ServingSetup(costs, random_routing(rng, 64, 4, 6, 1), limits, stretches)
    run_of = serving_replay._Run(setup, lambda _: None, True)
    slots = len(run_of._slots.number)
    serve(replace(setup, requests=lambda: iter([requests([0.0], 8, 2)])))  # compiled by now
    started = time.process_time()
    for part, final in serving_replay._marked(stretches()):
        run_of.through(part, final)
    per_s = count / (time.process_time() - started)
    assert run_of.outcome().finished == count
    assert len(run_of._slots.number) == slots
    print(f"{per_s:,.0f} requests per CPU second")
    assert per_s > 5000


def test_alike_requests_are_batched_and_nobody_is_passed_over_for_long():
    """Requests come in turn from two sources with experts of their own: 4 at once use 2 + 2 experts in order of
    arrival, and 2 where the window lets alike ones run together. An expert takes a second, a step nothing else.
    """
    sources, kinds = 2, 2
    mask = np.array([[[0b0011]], [[0b1100]]] * kinds, dtype=np.int64)
    one = np.arange(sources)
    routing = Routing(
        mask=mask,
        pairs=np.zeros((1, 1, 1), dtype=np.int64),
        ranks=np.array([[0b1111]]),
        prompt_start=one,
        prompt_low=one,
        prompt_high=one + 1,
        output_start=one,
        output_low=one,
        output_high=one + 1,
        liked=mask[:sources],
    )
    costs = replace(
        flat_costs(0.0, tokens=64, requests=4),
        load=np.array([0.0, 1000.0]),
        expert_s=np.array([[0.0, 1.0, 2.0, 3.0, 4.0]] * 2),
        top_k=np.array([2]),
        layers=np.ones(1),
    )
    load = replace(requests(np.zeros(80), 1, 10), source=np.arange(80) % 2)
    limits = Limits(tokens=64, requests=4, block_tokens=16, blocks=1000)
    in_order, _ = run(ServingSetup(costs, routing, limits, lambda: iter([load])))
    outcome, ended = run(ServingSetup(costs, routing, replace(limits, window=8), lambda: iter([load])))
    assert in_order.end_s == 20 * 10 * 4
    assert outcome.end_s < 0.65 * in_order.end_s  # 2 experts a step, but where a batch changes kind
    admitted = np.lexsort((ended["ident"], ended["scheduled_s"]))
    order = ended["ident"][admitted]
    overtaken = [int((order[:place] > ident).sum()) for place, ident in enumerate(order)]
    assert 0 < max(overtaken) <= 2 * 8
