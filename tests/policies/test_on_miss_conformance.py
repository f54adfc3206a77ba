"""One suite over every on-miss policy; a new one is tested without editing it."""

from dataclasses import fields

import numba
import numpy as np
import pytest

from moesim.policies import api
from moesim.policies.api import ABSENT, COMING, CPU, FETCH, HERE, LOW_COMING, LOW_HERE, SUBSTITUTE, Asked
from moesim.replay.source import module_source

NAMES = api.names("on_miss")
EXPERTS = 8


def compiled(function, name):
    """A decision compiled by numba from the source that the replay would generate."""
    namespace = {"CACHE": False}
    exec(module_source([function], {}, "nowhere", "a test"), namespace)
    return namespace[name]


def asked(rng, there):
    """A visit at random: lookups of different experts, residents as ``there`` says."""
    count = int(rng.integers(1, EXPERTS))
    expert = rng.permutation(EXPERTS)[:count]
    places = rng.choice(there, count)
    resident = rng.random(EXPERTS) < 0.5
    resident[expert] = places == HERE
    share = rng.random(count)
    return Asked(
        there=places,
        expert=expert,
        tokens=rng.integers(1, 4, count),
        share=share,
        before=np.where(rng.random(count) < 0.5, 0.0, 1 - share),
        fetch_s=rng.random(count),
        low_s=rng.random(count),
        cpu_s=rng.random(count),
        gpu_s=rng.random(count),
        resident=resident,
        uses=rng.integers(0, 9, EXPERTS),
        action=np.full(count, FETCH),
        order=np.arange(count),
        instead=np.full(count, -1),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_decision_compiles_and_agrees_with_its_interpreted_self(name, monkeypatch):
    monkeypatch.setattr(numba.config, "OPT", type(numba.config.OPT)(0))
    policy = api.load("on_miss", name)
    state = policy.module.initial_state(policy.params)
    rng = np.random.default_rng(1)
    if hasattr(policy.module, "decide"):
        fast = compiled(policy.module.decide, "decide")
        for _ in range(50):
            given = int(rng.integers(1, 20)), *rng.random(3).tolist()
            answer = policy.module.decide(state.tolist(), *given)
            assert fast(state, *given) == answer
            assert answer in policy.actions
        return
    fast = compiled(policy.module.plan, "plan")
    low = (LOW_HERE, LOW_COMING) if api.LOW in policy.actions else ()
    for _ in range(100):
        visit = asked(rng, (ABSENT, HERE, COMING, *low))
        plain = Asked(**{field.name: getattr(visit, field.name).tolist() for field in fields(Asked)})
        policy.module.plan(state.tolist(), plain)
        fast(state, *(getattr(visit, field.name) for field in fields(Asked)))
        assert plain == Asked(**{field.name: getattr(visit, field.name).tolist() for field in fields(Asked)})
        keeps_its_contract(policy, plain)


def keeps_its_contract(policy, visit):
    """It chooses what it says it chooses; substitutes are free residents, each used once."""
    stand_ins = []
    for place, action in enumerate(visit.action):
        assert action in (FETCH, *policy.actions)
        if action == SUBSTITUTE:
            stand_ins.append(visit.instead[place])
    assert all(visit.resident[stand_in] and stand_in not in visit.expert for stand_in in stand_ins)
    assert len(set(stand_ins)) == len(stand_ins)
    demanded = [rank for rank, action, there in zip(visit.order, visit.action, visit.there, strict=True) if there == 0]
    assert len(set(demanded)) == len(demanded) or CPU not in visit.action
