"""An independent witness: what a real flash-streaming engine recorded on a real model (see the trace's source)."""

import json
from pathlib import Path

import numpy as np
import pytest

from moesim.replay import count
from moesim.studies.replay import load_any_trace, replay_study
from moesim.traces.trace import DECODE

TRACE = Path(__file__).parents[3] / "shared/data/traces/qwen3-30b-a3b_edge.npz"
MIB = 2**20

pytestmark = pytest.mark.skipif(not TRACE.exists(), reason="needs ../shared/data/traces (published data, not bundled)")


@pytest.fixture(scope="module")
def study():
    return replay_study(load_any_trace(TRACE), "lru")


def counted(study, capacity):
    return count(study.visits, study.sizes, study.policy, capacity, rule="evict_after")


def test_lru_gives_the_recorded_hit_rate_and_bytes(study):
    counts = counted(study, 4000 * MIB)
    assert round(100 * counts.hit_rate_per_lookup, 3) == 74.880
    assert round(counts.fetched_bytes.sum() / MIB, 1) == 27_213.7


def test_nothing_hits_below_one_tokens_cycle(study):
    assert counted(study, 500 * MIB).hit_rate_per_lookup == 0.0


def test_decode_accesses_hit_where_the_engine_recorded_a_hit(study):
    """Per access, in recorded order: [tokens, layers, top_k] of `residency`, 1 where the engine hit."""
    with np.load(TRACE, allow_pickle=False) as arrays:
        residency, phase = arrays["residency"], arrays["phase"]
        assert json.loads(str(arrays["meta"]))
    counts = counted(study, 4000 * MIB)
    visits = study.visits
    decode_visit = np.repeat(visits.steps.phase == DECODE, visits.num_layers)
    visit = np.repeat(np.arange(visits.num_visits), np.diff(visits.lookup_start))
    ours = counts.hit[decode_visit[visit]]
    theirs = residency[phase == DECODE].reshape(-1)
    assert len(ours) == len(theirs)
    assert (ours == (theirs == 1)).mean() >= 0.999
