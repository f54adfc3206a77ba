"""As ``test_libcachesim``, on real routing: hits on captured, imported and synthetic traces equal libCacheSim's.

The order of activations is that of a workload at batch 1: request after request, in a prompt layer by layer.
"""

from pathlib import Path

import numpy as np
import pytest
from libcachesim_witness import SAME, hits_of_libcachesim

from moesim.policies import api
from moesim.replay import count
from moesim.studies.bench_streams import DS, MIX
from moesim.studies.replay import load_any_trace
from moesim.traces.steps import closed_loop
from moesim.traces.visits import visits_of

ROOT = Path(__file__).parents[2]
BUNDLED, SHARED = ROOT / "traces", ROOT.parent / "shared/data/traces"
ACTIVATIONS = 12_000

#: name -> where it is from
TRACES = {
    "moe-8x2": BUNDLED / "moe-8x2.npz",
    "moe-32x4": BUNDLED / "moe-32x4.npz",
    "moe-64x6": BUNDLED / "moe-64x6.npz",
    "moe-128x8": BUNDLED / "moe-128x8.npz",
    "gpt-oss-20b, imported": SHARED / "gpt-oss-20b_decode.npz",
    "qwen3-30b-a3b, imported": SHARED / "qwen3-30b-a3b_edge.npz",
    "mix, synthetic": MIX,
    "ds, synthetic": DS,
}

#: libCacheSim's hits, in the order of ``SAME``
WITNESS = {
    "moe-8x2": [9540, 9956, 3847, 10756, 9537, 9522, 9759, 9966, 9874, 9882, 9381, 3806],
    "moe-32x4": [11170, 11134, 3003, 11409, 11164, 11166, 11059, 11063, 11192, 11207, 5637, 3003],
    "moe-64x6": [11441, 11441, 3131, 11441, 11410, 11351, 10988, 11143, 11371, 11422, 3748, 3552],
    "moe-128x8": [11177, 11177, 3597, 11177, 11114, 11074, 10964, 10815, 11096, 11143, 3746, 3616],
    "gpt-oss-20b, imported": [5757, 5113, 4864, 8834, 5828, 5962, 4864, 5812, 6047, 6047, 4864, 5290],
    "qwen3-30b-a3b, imported": [7504, 7225, 3806, 8539, 7536, 7547, 7331, 7401, 7519, 7307, 3797, 5076],
    "mix, synthetic": [5499, 3984, 2224, 8058, 5498, 5498, 2224, 4409, 3690, 4226, 2224, 3984],
    "ds, synthetic": [5126, 4757, 3844, 6876, 5250, 5286, 3844, 4157, 5387, 5060, 3844, 5197],
}
#: Its Random's on moe-8x2, at one seed
RANDOM = 9818


def workload(name):
    """The first steps of a trace, and a quarter of the experts that they use; skips what is not bundled and absent."""
    source = TRACES[name]
    if isinstance(source, Path) and not source.exists():
        pytest.skip("needs ../shared/data (published data, not bundled)")
    trace = load_any_trace(source) if isinstance(source, Path) else source.trace(ACTIVATIONS // source.per_token + 1)
    requests = trace.request_ids.tolist()
    rows = np.cumsum([rows.stop - rows.start for rows in map(trace.rows_of, requests)])
    enough = int(np.searchsorted(rows * trace.num_layers * trace.top_k, ACTIVATIONS)) + 1
    visits = visits_of(trace, closed_loop(trace, requests[:enough]))
    return visits, len(np.unique(visits.activation_key[:ACTIVATIONS])) // 4


def our_hits(visits, slots):
    """Of each policy that both have, over the first activations."""
    found = []
    for policy, params, _, _ in SAME.values():
        sizes = np.ones(visits.num_keys, dtype=np.int64)
        counts = count(visits, sizes, api.load("caching", policy, params), slots, rule="sequential")
        found.append(int(counts.hit[:ACTIVATIONS].sum()))
    return found


@pytest.mark.parametrize("name", TRACES)
def test_hits_on_a_trace_are_the_witness_s(name):
    assert our_hits(*workload(name)) == WITNESS[name]


@pytest.mark.parametrize("name", TRACES)
def test_the_witness_says_what_is_written_here(name):
    pytest.importorskip("libcachesim")
    visits, slots = workload(name)
    keys = visits.activation_key
    assert [hits_of_libcachesim(keys, slots, *of, first=ACTIVATIONS) for _, _, *of in SAME.values()] == WITNESS[name]


def test_random_differs_in_its_generator_only():
    """libCacheSim draws from another one: the same number of hits, but for chance."""
    visits, slots = workload("moe-8x2")
    sizes, seeds = np.ones(visits.num_keys, dtype=np.int64), range(1, 9)
    of_seed = [api.load("caching", "random", {"seed": seed}) for seed in seeds]
    found = [count(visits, sizes, policy, slots, rule="sequential").hit[:ACTIVATIONS].sum() for policy in of_seed]
    assert abs(np.mean(found) - RANDOM) < 4 * np.std(found)
    assert np.std(found) < 0.01 * ACTIVATIONS
