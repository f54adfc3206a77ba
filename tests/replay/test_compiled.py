"""The compiled replay counts what the interpreted one counts, and its cache on disk does no harm."""

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import MIB, trace_of, visits_for
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import PolicyError
from moesim.policies import api
from moesim.policies.api import CacheContext
from moesim.replay import compiled_counts, count, counts
from moesim.replay.compile import cache_folder
from moesim.replay.expert_cache import contexts
from moesim.replay.lru_curve import lru_curve
from moesim.replay.stream import VisitsPart, parts_of, stream_counts, visits_parts

EXPERTS, LAYERS, TOP_K = 5, 3, 2
RULES = ["reserve", "evict_after", "sequential"]
ROUTING = st.lists(
    st.lists(st.permutations(range(EXPERTS)).map(lambda order: order[:TOP_K]), min_size=LAYERS, max_size=LAYERS),
    min_size=1,
    max_size=20,
)


def random_rows(tokens, seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.permutation(EXPERTS)[:TOP_K] for _ in range(LAYERS)] for _ in range(tokens)]


def workload(rows, prompt=0, requests=1, batch=1):
    ids = np.arange(len(rows)) * requests // len(rows)
    return visits_for(trace_of(rows, num_experts=EXPERTS, prompt=prompt, requests=ids), batch=batch)


@pytest.mark.parametrize("name", api.names("caching"))
@settings(max_examples=40, deadline=None)
@given(rows=ROUTING, data=st.data())
def test_compiled_and_interpreted_counts_are_equal(name, rows, data):
    visits = workload(
        rows,
        prompt=data.draw(st.integers(0, 4), "prompt"),
        requests=data.draw(st.integers(1, 3), "requests"),
        batch=data.draw(st.integers(1, 3), "batch"),
    )
    sizes = np.array(data.draw(st.lists(st.integers(1, 3), min_size=15, max_size=15), "sizes"))
    per_layer = data.draw(st.booleans(), "per layer")
    capacity = data.draw(st.integers(9, 20), "capacity") * (LAYERS if per_layer else 1)
    rule = data.draw(st.sampled_from(RULES), "rule")
    policy = api.load("caching", name)
    parts = contexts(
        sizes,
        capacity,
        experts_per_layer=EXPERTS,
        per_layer=per_layer,
        training_uses=counts.training_uses(visits),
    )
    expected, overshoot = counts._interpreted(visits, policy, parts, rule, lambda _: None)
    found, compiled_overshoot = compiled_counts.replay(visits, policy, parts, rule, lambda _: None)
    assert found.tolist() == expected.tolist()
    assert compiled_overshoot == overshoot


class Strict(list):
    """A list that can't be indexed from its end, as compiled code can't."""

    def __getitem__(self, index):
        assert not isinstance(index, int) or index >= 0
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        assert not isinstance(index, int) or index >= 0
        super().__setitem__(index, value)


@pytest.mark.parametrize("name", api.names("caching"))
def test_policies_never_index_from_the_end(name):
    """Compiled functions take indices as unsigned numbers."""
    policy = api.load("caching", name)
    visits = workload(random_rows(120), prompt=5, requests=3)
    uses = counts.training_uses(visits)
    for per_layer in (False, True):
        parts = contexts(
            np.ones(LAYERS * EXPERTS, dtype=np.int64),
            9,
            experts_per_layer=EXPERTS,
            per_layer=per_layer,
            training_uses=uses,
        )
        caches = counts.CachePartition(tuple(counts.ExpertCache(policy, part) for part in parts), EXPERTS)
        for cache in caches.caches:
            cache._state_i, cache._state_f = Strict(cache._state_i), Strict(cache._state_f)
            cache.locked = Strict(cache.locked)
        counts._reserve(visits, caches, counts.notes_of(visits, policy), lambda _: None)


def test_count_takes_the_compiled_way_where_it_pays(monkeypatch):
    visits, sizes = workload(random_rows(50)), np.full(LAYERS * EXPERTS, MIB)
    policy = api.load("caching", "fifo")
    monkeypatch.setattr(counts, "_worth_compiling", lambda *_: False)
    interpreted = [count(visits, sizes, policy, 5 * MIB, rule=rule, phase="decode").to_dict() for rule in RULES]
    monkeypatch.setattr(counts, "_worth_compiling", lambda *_: True)
    monkeypatch.delattr(counts, "_interpreted")
    seen = []
    compiled = [
        count(visits, sizes, policy, 5 * MIB, rule=rule, phase="decode", progress=seen.append).to_dict()
        for rule in RULES
    ]
    assert compiled == interpreted
    assert seen == [visits.num_visits] * 3


def test_a_victim_that_is_not_kept_is_refused(monkeypatch):
    policy = api.load("caching", "none")
    broken = api.Policy("caching", "broken", broken_module(policy.module), policy.params)
    context = CacheContext(np.ones(LAYERS * EXPERTS, dtype=np.int64), 2, EXPERTS)
    with pytest.raises(PolicyError, match="victim"):
        compiled_counts.replay(workload(random_rows(20)), broken, [context], "sequential", lambda _: None)


def broken_module(module):
    """``none``, but it keeps what comes."""
    copy = type(module)("broken", module.__doc__)
    vars(copy).update({name: found for name, found in vars(module).items() if name != "admit"})
    copy.__name__ = "broken"
    return copy


@pytest.mark.parametrize("phase", ["all", "decode"])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_all_lru_sizes_at_once_are_the_single_ones(rule, per_layer, phase):
    visits = workload(random_rows(400), prompt=7, requests=4, batch=2)
    whole = VisitsPart.whole(visits)
    if rule == "sequential":
        whole = replace(whole, lookup_start=whole.start, lookup_key=whole.key)
    curve = lru_curve([whole], EXPERTS, rule, per_layer=per_layer, phase=phase)
    assert curve.least == (1 if rule == "sequential" else int(np.diff(visits.lookup_start).max()))
    sizes, parts = np.ones(LAYERS * EXPERTS, dtype=np.int64), LAYERS if per_layer else 1
    for slots in range(curve.least, len(curve.hits)):
        capacity = slots * parts
        one = count(visits, sizes, api.load("caching", "lru"), capacity, per_layer=per_layer, rule=rule, phase=phase)
        assert (curve.hits[slots], curve.lookups) == (one.hits.sum(), one.lookups.sum())
    assert (np.diff(curve.hits) >= 0).all()


@pytest.mark.parametrize("name", ["lru", "edgemoe", "random"])
@pytest.mark.parametrize("block", [30, 10**6])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_a_stream_counts_as_the_whole_does(rule, per_layer, block, name, monkeypatch):
    monkeypatch.setattr("moesim.replay.stream.BLOCK", block)
    rows = np.array(random_rows(60))
    rows[::7, :, 1] = -1
    trace = trace_of(rows, num_experts=EXPERTS, prompt=8, requests=np.arange(60) // 25)
    requests, sizes = trace.request_ids.tolist(), np.arange(LAYERS * EXPERTS) % 3 + 1
    policy = api.load("caching", name)
    for phase in ("all", "decode"):
        options = {"per_layer": per_layer, "rule": rule, "phase": phase}
        whole = count(visits_for(trace), sizes, policy, 18, **options).to_dict()
        seen = []
        stream = parts_of(trace, requests), EXPERTS, sizes, policy, 18
        assert stream_counts(*stream, **options, progress=seen.append).to_dict() == whole
        assert seen == sorted(seen)
        assert seen[-1] == visits_for(trace).num_visits
    with pytest.raises(PolicyError, match="stream"):
        stream_counts(parts_of(trace, requests), EXPERTS, sizes, api.load("caching", "belady"), 6)


def test_an_lru_curve_is_the_same_in_parts(monkeypatch):
    trace = trace_of(random_rows(60), num_experts=EXPERTS, prompt=8, requests=np.arange(60) // 25)
    whole = lru_curve([VisitsPart.whole(visits_for(trace))], EXPERTS, phase="decode")
    monkeypatch.setattr("moesim.replay.stream.BLOCK", 30)
    parts = visits_parts(parts_of(trace, [0, 1, 2]), EXPERTS, lookups=True)
    found = lru_curve(parts, EXPERTS, phase="decode")
    assert (found.hits.tolist(), found.lookups, found.least) == (whole.hits.tolist(), whole.lookups, whole.least)


COUNT = """
import numpy as np
from moesim.policies import api
from moesim.replay import stream
block = np.arange(400).reshape(50, 2, 4) % 7
sizes = np.ones(14, dtype=np.int64)
parts = stream.decode_parts([block, block])
counts = stream.stream_counts(parts, 7, sizes, api.load("caching", "fifo"), 5)
print(counts.hits.tolist())
"""


def counted(folder):
    """What a new process counts with its cache in ``folder``, and what it says on stderr."""
    environment = os.environ | {"MOESIM_CACHE_DIR": str(folder), "NUMBA_DEBUG_CACHE": "1"}
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_the_second_start_compiles_nothing(tmp_path):
    first, second = counted(tmp_path), counted(tmp_path)
    assert any("data saved" in line for line in first)
    assert not any("data saved" in line for line in second)
    assert any("data loaded" in line for line in second)
    assert first[-1] == second[-1]


def test_two_processes_may_fill_the_cache_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(counted, [tmp_path, tmp_path])
    assert first[-1] == second[-1] == counted(tmp_path)[-1]
    assert not list(tmp_path.glob("*.draft"))


def test_without_a_place_for_the_cache_kernels_are_compiled_in_memory(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert counted(blocked / "cache")[-1] == counted(tmp_path)[-1]


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MOESIM_CACHE_DIR", raising=False)
    assert cache_folder() == tmp_path / "moesim"
    monkeypatch.setenv("MOESIM_CACHE_DIR", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
