"""One suite over every registered policy; a new policy is tested without editing it."""

import functools
import inspect
import types

import numba
import numpy as np
import pytest
from builders import MIB, setup_of, trace_of, visits_for
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.engine import simulate
from moesim.errors import PolicyError
from moesim.policies import api, structures
from moesim.policies.api import CacheContext, Policy, PolicyParams
from moesim.replay import count
from moesim.replay.counts import training_uses
from moesim.replay.expert_cache import ExpertCache

CACHING = api.names("caching")
ONLINE = [name for name in CACHING if not api.load("caching", name).needs_future]
TRACES = st.lists(
    st.lists(st.permutations(range(4)).map(lambda order: list(order[:2])), min_size=2, max_size=2),
    min_size=1,
    max_size=12,
)
RULES = st.sampled_from(["reserve", "evict_after", "sequential"])
FAST = settings(max_examples=40, deadline=None)


def trace_from(rows, **options):
    return trace_of(rows, num_experts=4, **options)


def counted(name, rows, slots, **options):
    visits = visits_for(trace_from(rows, prompt=options.pop("prompt", 0)))
    sizes = np.full(visits.num_keys, MIB, dtype=np.int64)
    return count(visits, sizes, api.load("caching", name), slots * MIB, training_uses=training_uses(visits), **options)


@pytest.mark.parametrize("family", api.FAMILIES)
def test_every_policy_keeps_its_contract_and_says_its_rule(family):
    assert api.names(family)
    for name in api.names(family):
        policy = api.load(family, name)
        first_line = (policy.module.__doc__ or "").splitlines()[0]
        assert ":" in first_line or "." in first_line
        assert policy.describe()["name"] == name
        for function in ("on_hit", "on_insert", "victim", "candidates", "decide"):
            assert inspect.getdoc(getattr(policy.module, function, policy.module))


@functools.cache
def compiled(function):
    """``function`` compiled by numba, with every function of this project that it calls."""
    names = {
        name: compiled(value) if inspect.isfunction(value) and value.__module__.startswith("moesim.") else value
        for name, value in function.__globals__.items()
        if name in function.__code__.co_names
    }
    return numba.njit(types.FunctionType(function.__code__, names, function.__name__))


@pytest.mark.parametrize("name", CACHING)
def test_caching_compiles_and_agrees_with_its_interpreted_self(name, monkeypatch):
    """The functions on state run in numba's nopython mode and leave the same state as Python does on lists."""
    monkeypatch.setattr(numba.config, "OPT", type(numba.config.OPT)(0))  # halves the time to compile
    policy = api.load("caching", name)
    module = policy.module
    context = CacheContext(np.full(6, MIB, np.int64), 3 * MIB, 3, np.arange(6))
    arrays = module.initial_state(policy.params, context)
    lists = tuple(array.tolist() for array in arrays)
    locked = np.zeros(6, np.int64)

    def call(function, *arguments):
        """The interpreted answer, after checking that the compiled one is the same; None where it has no such rule."""
        if not hasattr(module, function):
            return None
        plain = [argument.tolist() if isinstance(argument, np.ndarray) else argument for argument in arguments]
        answer = getattr(module, function)(*lists, *plain)
        assert compiled(getattr(module, function))(*arrays, *arguments) == answer
        return answer

    rng = np.random.default_rng(1)
    resident: list[int] = []
    for now in range(200):
        if now % 3 == 0:
            call("on_visit", now // 3 % 2, now % 30 == 0)
        key = int(rng.integers(6))
        note = float(now + rng.integers(1, 20))
        if key in resident:
            call("on_hit", key, now, note)
            continue
        call("before_insert", key)
        while len(resident) >= 3:
            locked[:] = 0
            locked[resident[0]] = now % 2
            victim = call("victim", locked)
            assert victim in resident
            assert not locked[victim]
            call("on_evict", victim)
            resident.remove(victim)
        if call("admit", key, now, note) is False:
            call("on_bypass", key, now, note)
        else:
            call("on_insert", key, now, note)
            resident.append(key)
    locked[:] = 1
    assert call("victim", locked) == -1
    assert [array.tolist() for array in arrays] == list(lists)


@pytest.mark.parametrize("name", CACHING)
@FAST
@given(rows=TRACES, rule=RULES, slots=st.integers(3, 8), per_layer=st.booleans())
def test_caching_conserves(name, rule, rows, slots, per_layer):
    counts = counted(name, rows, slots if not per_layer else 2 * slots, rule=rule, per_layer=per_layer)
    tokens = len(rows)
    assert counts.activations.tolist() == [2 * tokens] * 2
    assert counts.lookups.sum() == 4 * tokens
    misses = counts.lookups - counts.hits
    assert counts.fetched_bytes.tolist() == (misses * MIB).tolist()
    assert (misses >= 0).all()
    assert counts.overshoot_bytes == 0 or rule == "evict_after"


@pytest.mark.parametrize("name", ONLINE)
@FAST
@given(rows=TRACES, rule=RULES, slots=st.integers(3, 8), prompt=st.integers(0, 3))
def test_no_online_policy_beats_belady(name, rule, rows, slots, prompt):
    """Equal sizes and costs. A static policy starts with its content, so its preloads count as fetches."""
    ours = counted(name, rows, slots, rule=rule, prompt=prompt)
    best = counted("belady", rows, slots, rule=rule, prompt=prompt)
    policy = api.load("caching", name)
    context = CacheContext(np.full(8, MIB, np.int64), slots * MIB, 4, np.arange(8))
    preloaded = len(policy.preload(context))
    assert best.fetched_bytes.sum() <= ours.fetched_bytes.sum() + preloaded * MIB


@pytest.mark.parametrize("name", ["lru", "belady"])
@FAST
@given(rows=TRACES)
def test_stack_algorithms_are_monotone_in_size(name, rows):
    misses = [counted(name, rows, slots, rule="sequential").fetched_bytes.sum() for slots in range(1, 9)]
    assert misses == sorted(misses, reverse=True)


@pytest.mark.parametrize("name", CACHING)
@FAST
@given(rows=TRACES, slots=st.integers(3, 8), prompt=st.integers(0, 2), per_layer=st.booleans())
def test_engine_and_counting_replay_label_alike(name, rows, slots, prompt, per_layer):
    trace = trace_from(rows, prompt=prompt)
    visits = visits_for(trace)
    uses = training_uses(visits)
    slots = 2 * slots if per_layer else slots
    for rule in ("reserve", "evict_after"):
        setup = setup_of(trace, slots=slots, caching=name, rule=rule, per_layer=per_layer, training_uses=uses)
        counts = count(
            visits, setup.sizes, setup.gpu.policy, slots * MIB, rule=rule, per_layer=per_layer, training_uses=uses
        )
        assert (simulate(setup).label == 0).tolist() == counts.hit.tolist()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "name", [name for name in api.names("prefetch") if not api.load("prefetch", name).needs_future]
)
def test_causal_prefetchers_do_not_see_the_tail(name, batch):
    """Changing the routing from the middle of a step on does not change what is proposed until then.

    Four requests run, so that what is learned from the first ones matters. Where the future is modelled from the
    truth, it ends with the step.
    """
    layers, requests = 3, np.repeat(np.arange(4), 8)
    rng = np.random.default_rng(3)
    rows = np.array([[rng.permutation(4)[:2] for _ in range(layers)] for _ in requests])
    lookahead = {distance: np.roll(rows, -distance, axis=1) for distance in (1, 2)}
    for distance, channel in lookahead.items():
        channel[:, -distance:] = -1
    policy = api.load("prefetch", name)

    def visits_and_proposals(rows):
        trace = trace_of(rows, num_experts=4, prompt=2, requests=requests, lookahead=lookahead)
        visits = visits_for(trace, batch=batch)
        found = policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0))
        assert (np.diff(found.start) >= 0).all()
        assert found.start[-1] == len(found.key) == len(found.target)
        visit = np.repeat(np.arange(visits.num_visits), np.diff(found.start))
        assert (found.target > visit).all()
        assert (found.key // visits.num_experts == found.target % layers).all()
        pairs = visit * visits.num_keys + found.key
        assert len(np.unique(pairs)) == len(pairs)
        return visits, found

    visits, all_of_them = visits_and_proposals(rows)
    steps = visits.steps
    for step in range(1, steps.num_steps):
        for layer in [layers - 1] if policy.models_future else range(layers):
            changed = rows.copy()
            running = steps.row[steps.row_start[step] : steps.row_start[step + 1]]
            changed[running, layer + 1 :] = (changed[running, layer + 1 :] + 1) % 4
            later = steps.row[steps.row_start[step + 1] :]
            changed[later] = (changed[later] + 1) % 4
            early = all_of_them.start[step * layers + layer + 1]
            _, found = visits_and_proposals(changed)
            assert found.start[step * layers + layer + 1] == early
            assert found.key[:early].tolist() == all_of_them.key[:early].tolist()
            assert found.target[:early].tolist() == all_of_them.target[:early].tolist()


def test_a_policy_that_reads_the_future_must_say_so():
    module = types.ModuleType("sneaky", "Sneaky: reads ahead.")
    module.Params = PolicyParams
    module.NOTE = "next_use"
    for name in ("initial_state", "on_hit", "on_insert", "on_evict", "victim"):
        setattr(module, name, getattr(api.load("caching", "lru").module, name))
    with pytest.raises(PolicyError, match="needs_future"):
        api.check("caching", "sneaky", module)
    module.needs_future = True
    api.check("caching", "sneaky", module)


def test_a_module_without_its_functions_is_told_all_of_them():
    with pytest.raises(PolicyError) as error:
        api.check("caching", "empty", types.ModuleType("empty"))
    told = str(error.value)
    assert all(name in told for name in ("Params", "initial_state", "on_hit", "on_insert", "on_evict", "victim"))


def test_heap_matches_a_sorted_list():
    rng = np.random.default_rng(2)
    state = structures.empty_heap(9).tolist()
    ranks: dict[int, tuple[int, int]] = {}
    for now in range(500):
        key = int(rng.integers(9))
        if key in ranks and rng.random() < 0.4:
            structures.heap_remove(state, key)
            del ranks[key]
        else:
            ranks[key] = (int(rng.integers(5)), now)
            structures.heap_put(state, key, *ranks[key])
        locked = [int(rng.random() < 0.4) for _ in range(9)]
        free = [key for key in ranks if not locked[key]]
        assert structures.smallest_unlocked(state, locked) == min(free, key=ranks.__getitem__, default=-1)


def test_lru_evicts_in_the_order_of_last_use_across_a_prefill():
    """After a prefill visit, experts stand ordered by their last use, token by token."""
    rows = [[[0], [0]], [[1], [0]], [[0], [0]]]
    policy = api.load("caching", "lru")
    cache = ExpertCache(policy, CacheContext(np.full(2, 1, np.int64), 2, 2))
    visits = visits_for(trace_of(rows, num_experts=2, prompt=3))
    assert visits.lookup_key[: visits.lookup_start[1]].tolist() == [1, 0]
    cache.begin_visit([1, 0])
    for key in (1, 0):
        cache.start_demand(key)
    cache.end_visit([(0, 0.0), (1, 0.0), (0, 0.0)])
    assert cache.victim() == 1


def test_parameters_are_checked_all_at_once():
    with pytest.raises(PolicyError) as error:
        api.load("prefetch", "next-gate", {"lookahead": 0, "budgett": 3})
    assert len(error.value.faults) == 2
    assert "did you mean 'budget'" in str(error.value)


def test_policies_are_described_with_every_parameter():
    policy: Policy = api.load("prefetch", "next-gate", {"lookahead": 2})
    assert policy.describe() == {"name": "next-gate", "lookahead": 2, "budget": None, "accuracy": None}
