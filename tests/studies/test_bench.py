"""``moesim bench``: what it measures on small streams, how it judges, and what it says of what is not here."""

import pytest

from moesim.studies import bench, bench_optima, bench_rivals, bench_rows
from moesim.studies.bench_rows import BenchRow
from moesim.studies.bench_streams import Stream


@pytest.fixture
def small(monkeypatch):
    """Streams of a few hundred tokens in place of millions of activations."""
    few = Stream("mix", layers=5, experts=8, top_k=2, slots=22, tokens=300)
    many = Stream("ds", layers=3, experts=20, top_k=3, slots=40, tokens=200)
    monkeypatch.setattr(bench, "MIX", few)
    monkeypatch.setattr(bench, "DS", many)
    monkeypatch.setattr(bench, "STREAMED", 8 * 100 * many.per_token)


def test_every_policy_is_measured_on_both_streams_and_counts_its_rivals_hits(small):
    rows = list(bench.bench(["replay", "curve"], rounds=1))
    assert {(row.stream, row.what) for row in rows if row.against == "libcachesim"} == {
        (stream, policy) for stream in ("mix", "ds") for policy in bench.AGAINST_LIBCACHESIM
    }
    measured = [row for row in rows if row.value is not None]
    assert {"C -O3", "one size"} <= {row.against for row in measured} | {row.against for row in rows if row.note}
    assert all(row.same_hits for row in measured)
    assert all(row.rate > 0 for row in rows)


def test_what_is_not_installed_is_said(small, monkeypatch):
    monkeypatch.setattr(bench, "libcachesim_run", lambda *_: None)
    monkeypatch.setattr(bench_rivals.shutil, "which", lambda _: None)
    rows = list(bench.bench(["replay"], rounds=1))
    assert {row.note for row in rows} == {
        "libcachesim is not installed",
        "no C compiler (cc or gcc) is on the PATH",
    }
    assert {row.verdict for row in rows} == {"not measured"}
    assert all(row.rate > 0 for row in rows)


def row(value, *, unit="x", targets=(4.0, 6.0), same_hits=True):
    return BenchRow.of("replay", "mix", "lru", value, unit, targets=targets, same_hits=same_hits)


def test_the_verdict_follows_the_median_and_the_hits():
    assert row([7.0, 2.0, 6.5]).verdict == "aim reached"
    assert row([4.0]).verdict == "must reached"
    assert row([3.9]).verdict == "missed"
    assert row([9.0], same_hits=False).verdict == "missed"
    assert row([]).verdict == "not measured"
    assert row([9.0], targets=None).verdict == "–"
    assert row([10.0], unit="CPU s", targets=(10.0, 6.0)).verdict == "must reached"
    assert row([6.0], unit="CPU s", targets=(10.0, 6.0)).verdict == "aim reached"
    assert row([10.1], unit="CPU s", targets=(10.0, 6.0)).verdict == "missed"


def test_a_report_says_first_what_was_missed():
    text = bench_rows.to_markdown([row([7.0]), row([1.0, 3.0, 2.0]), row([])], {"cores": 2}, ["replay"])
    assert "3 figures have a target: 1 reach the aim, 0 the must, 2 neither" in text
    assert "- missed: replay, mix, lru, 2.00x for ≥ 4x" in text
    assert "| 1.00 … 3.00 |" in text


def test_optima_are_measured_with_their_gaps(monkeypatch):
    tiny = Stream("tiny", layers=2, experts=64, top_k=2, slots=40, tokens=20)
    for name in ("QWEN3", "DS"):
        monkeypatch.setattr(bench_optima, name, tiny)
    monkeypatch.setattr(bench_optima, "BRACKETED", (tiny,))
    sizes = bench_optima.Sizes(fetches=400, compiled=400, layers=2, experts=64)
    rows = list(bench_optima.optima(1, sizes))
    assert len(rows) == 9
    assert all(row.value is not None and row.must is not None for row in rows)
    assert {row.unit for row in rows} == {"CPU s", "%"}


def test_small_values_keep_two_digits():
    assert row([0.00214], unit="CPU s", targets=(0.05, None)).cells()[5] == "0.0021 CPU s"
