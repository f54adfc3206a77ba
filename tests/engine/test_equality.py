"""The SimPy engine and the compiled replay agree to the last bit, on random setups.

``MOESIM_EQUALITY_SETUPS=2000 pytest tests/engine/test_equality.py`` is the nightly run: so many with every policy, a
third as many with each of three pairs of policies compiled. By default some hundred run, for every change. A setup that
fails is shrunk, and printed as an argument of ``built``.

Experts differ in size and in the time of their copies and reads, as where each has a precision of its own; proposals
are those of a prefetch policy, or any at all, for any later visit.

Compiling takes seconds for each combination of policies. So the kernels run interpreted (they are ordinary Python) with
every policy, and compiled with a few.
"""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from builders import setup_of, trace_of
from hypothesis import given, note, settings
from hypothesis import strategies as st
from interpreted import interpreted_kernels

from moesim.engine import Outcome, figures_of, quickest, simulate
from moesim.engine.quickest import recorded
from moesim.engine.timeline import chrome_trace
from moesim.errors import ScenarioError
from moesim.policies import api
from moesim.policies.api import Candidates
from moesim.replay.figures import Moves
from moesim.replay.timed import Timed, replay_timed
from moesim.scenario import load_scenario
from moesim.scenario.build import build
from moesim.scenario.run import result_of

QUICKSTART = Path(__file__).parents[2] / "scenarios/quickstart.yaml"
SETUPS = int(os.environ.get("MOESIM_EQUALITY_SETUPS", "150"))
COMPARED = [field.name for field in fields(Timed) if field.name not in ("stall", "causes", "served", "waits")]
COMPARED += ["stall_s", "visit_start_s", "action"]
POLICIES = [name for name in api.names("caching") if name != "scheduled"]
HOSTS = ["lru", "static", "lfu", "s3fifo"]
#: Round numbers make ties; the others have no short binary form, so that every order of adding would show.
SECONDS = st.sampled_from([0.0, 0.25, 1.0, 3.0, 0.1, 0.7, 1e-4])
TIMED = ("before_s", "expert_s", "copy_s", "read_s", "cpu_s", "after_s", "shared_s")
ONE_LINK = [{}, {"unified": True}]
WITH_HOST = [
    {"host_slots": slots, "on_miss": miss}
    for slots in (1, 2, 3, 5, 9)
    for miss in (("fetch", {}), ("fiddler", {}), ("cpu-compute", {"max_tokens": 1}), ("cpu-compute", {}))
]
CPU_ONLY = [{"on_miss": ("cpu-compute", {"max_tokens": 1})}, {"on_miss": ("fiddler", {})}]
PREFETCH = [
    ("none", {}),
    ("next-gate", {}),
    ("next-gate", {"lookahead": 2}),
    ("oracle", {"horizon": 3}),
    ("fetch-all", {}),
    ("temporal", {}),
]


@st.composite
def setups(draw, caching=POLICIES, tiers=(*ONE_LINK, *CPU_ONLY, *WITH_HOST), host_caching=HOSTS):
    """The arguments of a random setup: small, so that a failure can be worked out by hand."""
    layers, experts = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    top_k = draw(st.integers(1, min(3, experts)))
    choice = st.permutations(range(experts)).map(lambda order: order[:top_k])
    keys = layers * experts
    rows = draw(st.lists(st.lists(choice, min_size=layers, max_size=layers), min_size=1, max_size=14))
    guesses = draw(st.lists(choice, min_size=len(rows), max_size=len(rows)))
    per_layer = draw(st.booleans())
    return {
        "rows": rows,
        "guesses": guesses,
        "experts": experts,
        "prompt": draw(st.integers(0, 4)),
        "requests": sorted(draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))),
        "caching": draw(st.sampled_from(caching)),
        "prefetch": draw(st.sampled_from(PREFETCH)),
        "slots": draw(st.integers(3, 8)) * layers if per_layer else draw(st.integers(3, 12)),
        "per_layer": per_layer,
        "host_caching": draw(st.sampled_from(host_caching)),
        **draw(st.sampled_from(tiers)),
        "rule": draw(st.sampled_from(["reserve", "evict_after"])),
        "link": draw(st.sampled_from(["fifo", "demand-first"])),
        "workload": {"batch": draw(st.integers(1, 3))},
        "parts": draw(st.lists(st.sampled_from([1, 2, 4]), min_size=keys, max_size=keys)),
        "pinned": draw(st.sets(st.integers(0, keys - 1), max_size=1)) if not per_layer else set(),
        "proposals": draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.integers(0, keys - 1)))),
        **{name: draw(SECONDS) for name in TIMED},
    }


def built(arguments):
    """A setup from the arguments that ``setups`` draws."""
    rest = dict(arguments)
    rows, experts = np.array(rest.pop("rows")), rest.pop("experts")
    guesses, parts = np.array(rest.pop("guesses")), np.array(rest.pop("parts"))
    pinned, proposals = tuple(rest.pop("pinned")), rest.pop("proposals")
    look = np.repeat(guesses[:, None, :], rows.shape[1], axis=1)
    layer = np.arange(rows.shape[1])[:, None]
    lookahead = {distance: np.where(layer + distance < rows.shape[1], look, -1) for distance in (1, 2)}
    trace = trace_of(
        rows, num_experts=experts, prompt=rest.pop("prompt"), requests=rest.pop("requests"), lookahead=lookahead
    )
    setup = setup_of(trace, training_uses=np.arange(rows.shape[1] * experts), **rest)
    times = replace(setup.times, copy_s=setup.times.copy_s / parts, read_s=setup.times.read_s / parts)
    return replace(
        setup,
        sizes=setup.sizes // parts,
        times=times,
        gpu=replace(setup.gpu, pinned=pinned),
        candidates=any_candidates(proposals, setup.visits.num_visits) if proposals else setup.candidates,
    )


def any_candidates(proposals, num_visits):
    """Candidates from (visit, how far ahead, key); those that lie past the end are left out."""
    kept = sorted((visit, place, ahead, key) for place, (visit, ahead, key) in enumerate(proposals))
    kept = [(visit, visit + ahead, key) for visit, _, ahead, key in kept if visit + ahead < num_visits]
    start = np.searchsorted([visit for visit, _, _ in kept], np.arange(num_visits + 1))
    target, key = ([row[column] for row in kept] for column in (1, 2))
    return Candidates(start.astype(np.int64), np.array(key, dtype=np.int64), np.array(target, dtype=np.int64))


@settings(max_examples=SETUPS, deadline=None, print_blob=True)
@given(setups())
def test_engine_and_replay_agree(arguments):
    with interpreted_kernels():
        check(arguments)


@settings(max_examples=SETUPS // 3, deadline=None, print_blob=True)
@given(setups(caching=["lru"], tiers=ONE_LINK))
def test_engine_and_compiled_replay_agree_on_one_link(arguments):
    check(arguments)


@settings(max_examples=SETUPS // 3, deadline=None, print_blob=True)
@given(setups(caching=["belady"], tiers=[{"on_miss": ("cpu-compute", {"max_tokens": 1})}], host_caching=["lru"]))
def test_engine_and_compiled_replay_agree_with_the_cpu(arguments):
    check(arguments)


@settings(max_examples=SETUPS // 3, deadline=None, print_blob=True)
@given(setups(caching=["s3fifo"], tiers=[t for t in WITH_HOST if t["on_miss"][0] == "fiddler"], host_caching=["lru"]))
def test_engine_and_compiled_replay_agree_with_a_drive(arguments):
    check(arguments)


def check(arguments):
    note(f"built({arguments!r})")
    setup = built(arguments)
    expected, found = simulate(setup), replay_timed(setup, record_transfers=True)
    assert not [name for name in COMPARED if not same(expected, found, name)]
    for name, moves in expected.moves.items():
        assert not [field.name for field in fields(Moves) if not same(moves, found.moves[name], field.name)]


def same(expected, found, name):
    """Whether a field is equal, floats to the last bit."""
    left, right = getattr(expected, name), getattr(found, name)
    if name == "prefetch":
        return left == right
    return np.array_equal(left, right)


def test_what_the_replay_does_not_cover_is_named():
    setup = setup_of(trace_of([[[0]]], num_experts=1), slots=1)
    elsewhere = replace(setup.on_miss, name="elsewhere", module=ModuleType("elsewhere"))
    with pytest.raises(ScenarioError) as error:
        replay_timed(replace(setup, on_miss=elsewhere))
    assert "'elsewhere'" in str(error.value)
    assert "SimPy engine" in str(error.value)


@pytest.mark.parametrize("settings", [[], ["policies.caching=lfu", "policies.prefetch=next-gate"]])
def test_a_result_is_the_same_from_either_engine(settings, monkeypatch):
    file = load_scenario(QUICKSTART, ["workload.requests=2", *settings])
    expected = result_of(file).to_json()
    monkeypatch.setattr(quickest, "LOAD_FROM", 0)
    monkeypatch.setattr(quickest, "COMPILE_FROM", 0)
    monkeypatch.delattr(quickest, "simulate")
    with interpreted_kernels():
        assert result_of(file).to_json() == expected


def test_a_setup_that_the_replay_does_not_cover_is_simulated(monkeypatch):
    monkeypatch.setattr(quickest, "LOAD_FROM", 0)
    monkeypatch.setattr(quickest, "COMPILE_FROM", 0)
    trace = trace_of([[[0]], [[1]]], num_experts=2, weights=[[[1.0]], [[1.0]]])
    assert isinstance(figures_of(setup_of(trace, slots=1, on_miss=("drop-cold", {}))), Outcome)
    with interpreted_kernels():
        assert isinstance(figures_of(setup_of(trace, slots=1)), Timed)


def test_the_first_steps_of_a_run_look_the_same_when_they_are_run_alone():
    """The timeline of a run that the replay took is that of the engine."""
    setup = build(load_scenario(QUICKSTART, ["workload.requests=2", "policies.prefetch=next-gate"])).setup
    with interpreted_kernels():
        replayed = recorded(setup, replay_timed(setup), steps=5)
    whole = simulate(setup)
    assert len(replayed.compute) < len(whole.compute)
    assert chrome_trace(setup, replayed, max_steps=5) == chrome_trace(setup, whole, max_steps=5)
