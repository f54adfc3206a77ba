"""Hit counts of caching policies under rule ``sequential`` against libCacheSim's, an independent witness.

``WITNESS`` holds what PyPI's libcachesim 0.3.5 counted on the streams below. Where that package is installed (it is
GPL-licensed, and no dependency), the counts are taken again and compared with what is written here.
"""

import numpy as np
import pytest
from builders import trace_of, visits_for

from moesim.policies import api
from moesim.replay import count
from moesim.traces.visits import next_use

LENGTH = 6000

#: ours: (policy, parameters) -> libCacheSim's class and arguments
SAME = {
    "lru": ("lru", {}, "LRU", {}),
    "fifo": ("fifo", {}, "FIFO", {}),
    "lfu": ("lfu", {}, "LFU", {}),
    "belady": ("belady", {}, "Belady", {}),
    "clock, 1 bit": ("clock", {}, "Clock", {}),
    "clock, 2 bits": ("clock", {"bits": 2}, "Clock", {"n_bit_counter": 2}),
    "sieve": ("sieve", {}, "Sieve", {}),
    "s3fifo": ("s3fifo", {}, "S3FIFO", {}),
    "s3fifo, other shares": (
        "s3fifo",
        {"small_ratio": 0.25, "ghost_ratio": 0.5, "move_to_main": 1},
        "S3FIFO",
        {"small_size_ratio": 0.25, "ghost_size_ratio": 0.5, "move_to_main_threshold": 1},
    ),
    "arc": ("arc", {}, "ARC", {}),
    "lru-k, k = 2": ("lru-k", {"remember": False}, "LRUK", {"k": 2}),
    "lru-k, k = 3": ("lru-k", {"k": 3, "remember": False}, "LRUK", {"k": 3}),
}


def streams():
    """Keys by name, and the sizes (in experts) at which they are counted."""
    rng = np.random.default_rng(5)
    place = np.arange(LENGTH)
    popularity = np.arange(1, 257) ** -0.8
    skewed = np.arange(1, 129) ** -1.2
    drifting = rng.choice(128, size=LENGTH, p=skewed / skewed.sum()) + place // 1000 * 17
    return {
        "uniform": (rng.integers(64, size=LENGTH), (20, 50)),
        "zipf": (rng.choice(256, size=LENGTH, p=popularity / popularity.sum()), (20, 64, 200)),
        "drifting zipf": (drifting % 128, (20, 64)),
        "loop": (place % 90, (50, 80)),
        "half a loop": (np.where(rng.random(LENGTH) < 0.5, rng.integers(200, size=LENGTH), place % 60), (60, 100)),
    }


CASES = [(stream, size) for stream, (_, sizes) in streams().items() for size in sizes]
STREAMS = {stream: keys for stream, (keys, _) in streams().items()}

#: libCacheSim's hits, case by case
WITNESS = {
    "lru": [1887, 4670, 1627, 3200, 5301, 4066, 5254, 0, 0, 2595, 3933],
    "fifo": [1852, 4649, 1429, 2900, 5180, 3705, 5079, 0, 0, 2087, 3518],
    "lfu": [1838, 4651, 2381, 3548, 5342, 1722, 3709, 0, 0, 3019, 4356],
    "belady": [3791, 5555, 3162, 4485, 5635, 4855, 5635, 3270, 5250, 4275, 5094],
    "clock, 1 bit": [1905, 4662, 1734, 3272, 5316, 4111, 5271, 0, 0, 2512, 4061],
    "clock, 2 bits": [1911, 4684, 1830, 3358, 5338, 4207, 5272, 0, 0, 2418, 4323],
    "sieve": [1875, 4619, 2314, 3562, 5339, 4292, 5134, 0, 0, 3216, 4385],
    "s3fifo": [1882, 4639, 2379, 3556, 5351, 4328, 5254, 1760, 3698, 2851, 4370],
    "s3fifo, other shares": [1864, 4643, 2311, 3509, 5325, 4297, 5265, 2508, 2929, 2707, 4259],
    "arc": [1885, 4669, 2201, 3385, 5300, 4230, 5256, 0, 0, 2601, 3972],
    "lru-k, k = 2": [1868, 4661, 2453, 3587, 5344, 3866, 4762, 0, 0, 3244, 4355],
    "lru-k, k = 3": [1907, 4667, 2329, 3535, 5343, 3129, 4340, 0, 0, 2547, 4338],
}


def hits(policy, params, keys, size):
    """Hits in a cache of ``size`` experts, each key an expert of one layer."""
    visits = visits_for(trace_of(keys[:, None, None], num_experts=256))
    loaded = api.load("caching", policy, params)
    return int(count(visits, np.ones(256, np.int64), loaded, size, rule="sequential").hits.sum())


@pytest.mark.parametrize("name", SAME)
def test_hits_are_the_witness_s(name):
    policy, params, _, _ = SAME[name]
    assert [hits(policy, params, STREAMS[stream], size) for stream, size in CASES] == WITNESS[name]


@pytest.mark.parametrize("name", SAME)
def test_the_witness_says_what_is_written_here(name):
    libcachesim = pytest.importorskip("libcachesim")
    _, _, theirs, arguments = SAME[name]
    counted = []
    for stream, size in CASES:
        keys = STREAMS[stream]
        cache = getattr(libcachesim, theirs)(size, hashpower=12, **arguments)
        found = 0
        for place, (key, following) in enumerate(zip(keys.tolist(), next_use(keys).tolist(), strict=True)):
            request = libcachesim.Request()
            request.obj_id, request.obj_size = key + 1, 1
            request.clock_time, request.next_access_vtime = place, following
            found += bool(cache.get(request))
        counted.append(found)
    assert counted == WITNESS[name]


def test_belady_by_size_is_belady_where_sizes_are_equal():
    for stream, size in CASES:
        assert hits("belady-size", {}, STREAMS[stream], size) == WITNESS["belady"][CASES.index((stream, size))]


def test_lfu_with_dynamic_ageing_is_not_libcachesim_s():
    """After 0 0 1 2 in two slots, 0 (used twice) is here and 1 has left; libCacheSim 0.3.5 has dropped 0."""
    assert hits("lfu-ageing", {}, np.array([0, 0, 1, 2, 0]), 2) == 2


def test_gdsf_makes_room_before_it_looks_at_the_newcomer():
    """After 1 0 1 0 3 in two slots, 1 has left for 3; libCacheSim 0.3.5 keeps 0 and 1 and lets 3 pass."""
    assert hits("gdsf", {}, np.array([1, 0, 1, 0, 3, 3]), 2) == 3
    assert hits("gdsf", {}, np.array([1, 0, 1, 0, 3, 1]), 2) == 2
