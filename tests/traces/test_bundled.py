"""The traces that the repository ships are what their cards and their page say."""

import json
from pathlib import Path

import numpy as np
import pytest

from moesim.traces import load_trace
from moesim.traces.trace import DECODE

FOLDER = Path(__file__).parents[2] / "traces"
BUNDLED = sorted(FOLDER.glob("*.npz"))


def test_all_of_them_are_small():
    assert len(BUNDLED) >= 1
    assert sum(path.stat().st_size for path in BUNDLED) <= 20e6


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_the_card_beside_a_trace_is_its_own(path):
    trace = load_trace(path)
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside.pop("sha256") == trace.sha256
    assert beside == trace.card.model_dump(exclude_defaults=True, exclude={"sha256"})


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_bundled_trace_is_large_enough_and_complete(path):
    trace = load_trace(path)
    assert trace.card.origin == "captured"
    assert trace.num_layers >= 12
    assert len(trace.request_ids) >= 64
    assert len(trace.request) >= 20_000
    assert trace.weights is not None
    assert len(trace.card.domains) >= 10
    assert len(np.unique(np.asarray(trace.domain))) == len(trace.card.domains)
    assert set(trace.lookahead) == {1, 2, 3}
    decoded = np.asarray(trace.phase) == DECODE
    assert 0.2 < decoded.mean() < 0.8


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_the_model_learned_more_than_pairs_of_tokens(path):
    """A barely trained router looks deceptively local."""
    losses = load_trace(path).card.evaluation["nats_per_token"]
    assert losses["model"] < losses["bigram"] < losses["unigram"]


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_the_page_shows_the_cards_figures(path):
    page, card = (FOLDER / "README.md").read_text(), load_trace(path).card
    assert f"[{path.stem}]({path.stem}.json)" in page
    assert f"{card.evaluation['nats_per_token']['model']:.3f} (" in page
