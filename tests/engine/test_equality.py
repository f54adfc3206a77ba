"""The SimPy engine and the compiled replay agree to the last bit, on random setups.

``MOESIM_EQUALITY_SETUPS=2000`` runs so many of them; by default a few hundred, for every change.
"""

from __future__ import annotations

import os
from dataclasses import fields

import numpy as np
import pytest
from builders import setup_of, trace_of
from hypothesis import given, note, settings
from hypothesis import strategies as st

from moesim.engine import simulate
from moesim.errors import ScenarioError
from moesim.policies import api
from moesim.replay.timed import Timed, replay_timed

SETUPS = int(os.environ.get("MOESIM_EQUALITY_SETUPS", "300"))
#: Compiling takes seconds for each policy: a few of each kind (a note, an admission rule, a look at newcomers).
POLICIES = api.names("caching") if SETUPS > 300 else ["lru", "belady", "static", "s3fifo"]
#: Round numbers make ties; the others have no short binary form, so that every order of adding would show.
SECONDS = st.sampled_from([0.0, 0.25, 1.0, 3.0, 0.1, 0.7, 1e-4])
PREFETCH = [("none", {}), ("next-gate", {}), ("next-gate", {"lookahead": 2}), ("oracle", {"horizon": 3})]


@st.composite
def setups(draw):
    """The arguments of a random setup: small, so that a failure can be worked out by hand."""
    layers, experts = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    top_k = draw(st.integers(1, min(3, experts)))
    choice = st.permutations(range(experts)).map(lambda order: order[:top_k])
    rows = draw(st.lists(st.lists(choice, min_size=layers, max_size=layers), min_size=1, max_size=14))
    guesses = draw(st.lists(choice, min_size=len(rows), max_size=len(rows)))
    per_layer = draw(st.booleans())
    return {
        "rows": rows,
        "guesses": guesses,
        "experts": experts,
        "prompt": draw(st.integers(0, 4)),
        "requests": sorted(draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))),
        "caching": draw(st.sampled_from(POLICIES)),
        "prefetch": draw(st.sampled_from(PREFETCH)),
        "slots": draw(st.integers(3, 8)) * layers if per_layer else draw(st.integers(3, 12)),
        "per_layer": per_layer,
        "unified": draw(st.booleans()),
        "rule": draw(st.sampled_from(["reserve", "evict_after"])),
        "link": draw(st.sampled_from(["fifo", "demand-first"])),
        "workload": {"batch": draw(st.integers(1, 3))},
        **{name: draw(SECONDS) for name in ("before_s", "expert_s", "copy_s", "read_s", "after_s", "shared_s")},
    }


def built(arguments):
    """A setup from the arguments that ``setups`` draws."""
    rest = dict(arguments)
    rows, experts = np.array(rest.pop("rows")), rest.pop("experts")
    guesses = np.array(rest.pop("guesses"))
    look = np.repeat(guesses[:, None, :], rows.shape[1], axis=1)
    layer = np.arange(rows.shape[1])[:, None]
    lookahead = {distance: np.where(layer + distance < rows.shape[1], look, -1) for distance in (1, 2)}
    trace = trace_of(
        rows, num_experts=experts, prompt=rest.pop("prompt"), requests=rest.pop("requests"), lookahead=lookahead
    )
    return setup_of(trace, training_uses=np.arange(rows.shape[1] * experts), **rest)


@settings(max_examples=SETUPS, deadline=None, print_blob=True)
@given(setups())
def test_engine_and_replay_agree(arguments):
    note(f"built({arguments!r})")
    setup = built(arguments)
    expected, found = simulate(setup), replay_timed(setup)
    differing = [field.name for field in fields(Timed) if not same(expected, found, field.name)]
    assert not differing


def same(expected, found, name):
    """Whether a field is equal, floats to the last bit."""
    left, right = getattr(expected, name), getattr(found, name)
    if name == "prefetch":
        return vars(left) == right
    return np.array_equal(left, right)


def test_what_the_replay_does_not_cover_is_named():
    trace = trace_of([[[0]]], num_experts=1)
    setup = setup_of(trace, slots=1, host_slots=1, on_miss=("cpu-compute", {}))
    with pytest.raises(ScenarioError) as error:
        replay_timed(setup)
    assert len(error.value.faults) == 2
    assert "SimPy engine" in str(error.value)
