"""Hit counts of caching policies under rule ``sequential`` against libCacheSim's, an independent witness.

``WITNESS`` holds what PyPI's libcachesim 0.3.5 counted on the streams below. Where that package is installed (it is
GPL-licensed, and no dependency), the counts are taken again and compared with what is written here.
"""

import numpy as np
import pytest
from builders import trace_of, visits_for
from libcachesim_witness import SAME, hits_of_libcachesim

from moesim.policies import api
from moesim.replay import count

LENGTH = 3000


def streams():
    """Keys by name, and the sizes (in experts) at which they are counted."""
    rng = np.random.default_rng(5)
    place = np.arange(LENGTH)
    popularity = np.arange(1, 257) ** -0.8
    skewed = np.arange(1, 129) ** -1.2
    drifting = rng.choice(128, size=LENGTH, p=skewed / skewed.sum()) + place // 500 * 17
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
    "lru": [952, 2322, 788, 1591, 2576, 2010, 2583, 0, 0, 1328, 1973],
    "fifo": [957, 2337, 692, 1431, 2538, 1836, 2523, 0, 0, 1086, 1788],
    "lfu": [923, 2324, 1177, 1717, 2608, 1029, 1937, 0, 0, 1498, 2172],
    "belady": [1897, 2749, 1573, 2229, 2723, 2412, 2766, 1617, 2590, 2134, 2518],
    "clock, 1 bit": [940, 2335, 839, 1624, 2599, 2017, 2594, 0, 0, 1310, 2039],
    "clock, 2 bits": [930, 2315, 885, 1661, 2615, 2058, 2558, 0, 0, 1247, 2139],
    "sieve": [915, 2286, 1130, 1738, 2608, 2066, 2470, 0, 0, 1544, 2170],
    "s3fifo": [936, 2313, 1121, 1747, 2608, 2091, 2535, 880, 1830, 1482, 2155],
    "s3fifo, other shares": [923, 2327, 1103, 1743, 2603, 2087, 2562, 1234, 1462, 1380, 2124],
    "arc": [973, 2325, 1035, 1654, 2588, 2079, 2590, 0, 0, 1318, 1995],
    "lru-k, k = 2": [907, 2325, 1161, 1717, 2608, 1772, 2261, 0, 0, 1534, 2171],
    "lru-k, k = 3": [913, 2333, 1009, 1731, 2609, 1426, 2151, 0, 0, 1283, 2139],
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
    pytest.importorskip("libcachesim")
    assert [hits_of_libcachesim(STREAMS[stream], size, *SAME[name][2:]) for stream, size in CASES] == WITNESS[name]


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
