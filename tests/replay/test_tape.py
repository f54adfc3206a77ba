"""A tape timed again is a run of its own, to the last bit."""

from dataclasses import fields, replace

import numpy as np
import pytest
from builders import op, setup_of, trace_of
from hypothesis import given, note, settings
from hypothesis import strategies as st
from interpreted import interpreted_kernels

from moesim.errors import ScenarioError
from moesim.policies import api
from moesim.replay.figures import Moves
from moesim.replay.tape import record_tape, retimed
from moesim.replay.timed import Timed, replay_timed

SECONDS = st.sampled_from([0.0, 0.25, 1.0, 3.0, 0.1, 0.7, 1e-4])
NUMBERS = st.integers(0, 2**32 - 1)


def random_setup(draw, rng, policy):
    layers, experts, tokens = draw(st.integers(1, 3)), draw(st.integers(2, 7)), draw(st.integers(1, 14))
    top_k = draw(st.integers(1, min(3, experts)))
    rows = [[rng.permutation(experts)[:top_k] for _ in range(layers)] for _ in range(tokens)]
    trace = trace_of(
        rows,
        num_experts=experts,
        prompt=draw(st.integers(0, 5)),
        requests=np.sort(rng.integers(0, 3, tokens)),
    )
    per_layer = draw(st.booleans())
    setup = setup_of(
        trace,
        slots=draw(st.integers(1, 8)) * (layers if per_layer else 1),
        per_layer=per_layer,
        caching=policy,
        training_uses=np.arange(layers * experts),
        unified=draw(st.booleans()),
        rule=draw(st.sampled_from(["reserve", "evict_after"])),
        link=draw(st.sampled_from(["fifo", "demand-first"])),
        workload={"batch": draw(st.integers(1, 3))},
    )
    return replace(setup, sizes=setup.sizes // rng.choice([1, 2, 4], len(setup.sizes)))


def with_times(draw, rng, setup):
    """The setup on other hardware: every single time differs from its neighbour's now and then."""
    given = {name: draw(SECONDS) for name in ("before", "shared", "expert", "after")}
    times = setup.times
    drawn = {
        name: op(rng.choice([1.0, 0.3, 2.0], len(getattr(times, name).compute_s)) * s) for name, s in given.items()
    }
    keys = len(times.copy_s)
    copies = {name: rng.choice([1.0, 0.3, 2.0], keys) * draw(SECONDS) for name in ("copy_s", "read_s")}
    return replace(setup, times=replace(times, **drawn, **copies))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), policy=st.sampled_from([name for name in api.names("caching") if name != "scheduled"]))
def test_a_tape_timed_again_is_a_run(data, policy):
    with interpreted_kernels():
        check(data, policy)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_tape_timed_again_is_a_run_when_compiled(data):
    check(data, "lru")


def check(data, policy):
    rng = np.random.default_rng(data.draw(NUMBERS, "numbers"))
    setup = random_setup(data.draw, rng, policy)
    note(policy)
    tape = record_tape(setup)
    for _ in range(2):
        other = with_times(data.draw, rng, setup)
        found, expected = retimed(tape, other), replay_timed(other, record_transfers=True)
        for field in fields(Timed):
            if field.name != "served":
                assert np.array_equal(getattr(found, field.name), getattr(expected, field.name)), field.name
        for name, moves in expected.moves.items():
            for field in fields(Moves):
                assert np.array_equal(getattr(found.moves[name], field.name), getattr(moves, field.name))


TRACE = trace_of([[[0], [1]], [[1], [0]]], num_experts=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prefetch": ("oracle", {})}, "prefetched"),
        ({"host_slots": 2}, "host memory"),
        ({"on_miss": ("fiddler", {})}, "missing expert"),
    ],
)
def test_what_depends_on_the_clock_is_refused(options, told):
    with interpreted_kernels(), pytest.raises(ScenarioError, match=told):
        record_tape(setup_of(TRACE, slots=2, **options))


@pytest.mark.parametrize("options", [{"slots": 3}, {"caching": "lfu"}, {"rule": "evict_after"}, {"unified": True}])
def test_the_tape_of_another_cache_is_refused(options):
    with interpreted_kernels():
        tape = record_tape(setup_of(TRACE, slots=2))
    with pytest.raises(ScenarioError, match="another workload, cache or policy"):
        retimed(tape, setup_of(TRACE, **{"slots": 2, **options}))


def test_parameters_of_a_policy_are_part_of_it():
    setup = setup_of(TRACE, slots=2, caching="random")
    others = replace(setup.gpu, policy=api.load("caching", "random", {"seed": 7}))
    with interpreted_kernels(), pytest.raises(ScenarioError, match="another"):
        retimed(record_tape(setup), replace(setup, gpu=others))
