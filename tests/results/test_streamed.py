"""Streamed distributions: exact while few, within the width of a bin when many."""

import numpy as np
import pytest

from moesim.results import streamed
from moesim.results.metrics import distribution
from moesim.results.streamed import Streamed


def test_few_samples_are_exact_and_many_within_a_bin(monkeypatch):
    samples = np.random.default_rng(0).lognormal(-3, 2, 5000)
    few, many = Streamed(), Streamed()
    for part in np.split(samples, 10):
        few.add(part)
    assert few.summary() == distribution(samples)
    monkeypatch.setattr(streamed, "EXACT", 1000)
    for part in np.split(samples, 10):
        many.add(part)
    found, exact = many.summary(), distribution(samples)
    assert found.mean == pytest.approx(exact.mean)
    assert (found.n, found.min, found.max) == (exact.n, exact.min, exact.max)
    for name in ("p50", "p90", "p99"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.01)


def test_no_sample_is_undefined():
    assert Streamed().summary() is None
