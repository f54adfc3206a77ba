"""One suite over every registered policy; a new policy is tested without editing it."""

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
FAST = settings(max_examples=60, deadline=None)


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


def compiled(function, done):
    """``function`` compiled by numba, with every function of this project that it calls."""
    if function not in done:
        names = {
            name: compiled(value, done)
            if inspect.isfunction(value) and value.__module__.startswith("moesim.")
            else value
            for name, value in function.__globals__.items()
            if name in function.__code__.co_names
        }
        done[function] = numba.njit(types.FunctionType(function.__code__, names, function.__name__))
    return done[function]


@pytest.mark.parametrize("name", CACHING)
def test_caching_compiles_and_agrees_with_its_interpreted_self(name):
    """The functions on state run in numba's nopython mode and leave the same state as Python does on lists."""
    policy = api.load("caching", name)
    module = policy.module
    context = CacheContext(np.full(6, MIB, np.int64), 4 * MIB, 3, np.arange(6))
    arrays = module.initial_state(policy.params, context)
    lists = tuple(array.tolist() for array in arrays)
    done: dict = {}
    fast = {f: compiled(getattr(module, f), done) for f in ("on_hit", "on_insert", "on_evict", "victim")}
    rng = np.random.default_rng(1)
    resident: list[int] = []
    locked = np.zeros(6, np.int64)
    for now in range(200):
        key = int(rng.integers(6))
        note = float(now + rng.integers(1, 20))
        if key in resident:
            calls = [("on_hit", (key, now, note))]
        else:
            calls = [("on_insert", (key, now, note))]
            resident.append(key)
        for function, arguments in calls:
            getattr(module, function)(*lists, *arguments)
            fast[function](*arrays, *arguments)
        if len(resident) > 3:
            locked[:] = 0
            locked[key] = 1
            victim = module.victim(*lists, locked.tolist())
            assert fast["victim"](*arrays, locked) == victim
            assert victim != key
            if victim >= 0:
                module.on_evict(*lists, victim)
                fast["on_evict"](*arrays, victim)
                resident.remove(victim)
    assert [array.tolist() for array in arrays] == list(lists)


@pytest.mark.parametrize("name", CACHING)
@pytest.mark.parametrize("rule", ["reserve", "evict_after", "sequential"])
@FAST
@given(rows=TRACES, slots=st.integers(3, 8), per_layer=st.booleans())
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
@pytest.mark.parametrize("rule", ["reserve", "evict_after", "sequential"])
@FAST
@given(rows=TRACES, slots=st.integers(3, 8), prompt=st.integers(0, 3))
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


@pytest.mark.parametrize(
    "name", [name for name in api.names("prefetch") if not api.load("prefetch", name).needs_future]
)
def test_causal_prefetchers_do_not_see_the_tail(name):
    """Changing the routing from token 6 on does not change what is proposed before."""
    rng = np.random.default_rng(3)
    rows = np.array([[rng.permutation(4)[:2] for _ in range(3)] for _ in range(12)])
    changed = rows.copy()
    changed[6:] = (changed[6:] + 1) % 4
    look = np.roll(rows, -1, axis=1)
    look[:, -1] = -1
    policy = api.load("prefetch", name)

    def proposed(rows):
        trace = trace_of(rows, num_experts=4, lookahead={1: look})
        visits = visits_for(trace)
        found = policy.module.candidates(policy.params, visits, trace, np.random.default_rng(0))
        early = found.start[6 * 3]
        assert (np.diff(found.start) >= 0).all()
        assert found.start[-1] == len(found.key) == len(found.target)
        visit = np.repeat(np.arange(visits.num_visits), np.diff(found.start))
        assert (found.target > visit).all()
        return found.key[:early].tolist(), found.target[:early].tolist()

    assert proposed(rows) == proposed(changed)


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
