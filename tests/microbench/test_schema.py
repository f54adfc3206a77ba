"""Result files: what is read back, and what is refused."""

from __future__ import annotations

import json

import pytest
from microbench_builders import line, result_of, rows_of

from moesim.errors import FileError, MicrobenchError
from moesim.microbench.runner import row_of
from moesim.microbench.schema import read_result
from moesim.microbench.statistics import flags_of, summarised, thinned
from moesim.microbench.suite import bench_named

LINEAR = {"latency": 7e-6, "bandwidth": 2e10}


@pytest.fixture
def saved(tmp_path):
    """A function that changes a sound result's content and saves it; the path."""

    def save(change=None, text=None):
        content = json.loads(result_of(rows_of("alloc", LINEAR)).to_json())
        if change is not None:
            change(content)
        path = tmp_path / "result.json"
        path.write_text(json.dumps(content) if text is None else text)
        return path

    return save


def test_written_and_read_back(saved):
    result = result_of(rows_of("alloc", LINEAR))
    text = result.to_json()
    assert read_result(saved(text=text)) == result
    assert sum('"bench"' in line for line in text.splitlines()) == len(result.rows)  # one line for each


@pytest.mark.parametrize("cut", [0, 1, 100, -5])
def test_cut_files_are_refused(saved, cut):
    text = result_of(rows_of("alloc", LINEAR)).to_json()
    with pytest.raises(MicrobenchError, match="not valid JSON"):
        read_result(saved(text=text[:cut]))


@pytest.mark.parametrize("text", ["[]", "{}", '"x"', '{"schema": "moesim.microbench/2"}', '{"schema": 1}'])
def test_other_files_are_refused(saved, text):
    with pytest.raises(MicrobenchError, match="not a result that this version knows"):
        read_result(saved(text=text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError):
        read_result(tmp_path / "none.json")


def put(content, place, value):
    *path, last = place
    for key in path:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("rows", 0, "time_us", "p50"), 0, "rows.0.time_us.p50"),
        (("rows", 0, "time_us", "p50"), -1.0, "rows.0.time_us.p50"),
        (("rows", 0, "samples_us"), ["x"], "rows.0.samples_us.0"),
        (("rows", 0, "split"), "both", "rows.0.split"),
        (("rows", 1, "colour"), "red", "rows.1.colour"),
        (("run", "level"), "slow", "run.level"),
        (("machine",), None, "machine"),
        (("status",), "perhaps", "status"),
    ],
)
def test_impossible_content_is_refused_with_its_place(saved, place, value, told):
    with pytest.raises(MicrobenchError, match=told):
        read_result(saved(lambda content: put(content, place, value)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(saved, number):
    text = result_of(rows_of("alloc", LINEAR)).to_json().replace('"duration_s": 1.0', f'"duration_s": {number}')
    assert number in text
    with pytest.raises(MicrobenchError, match="finite numbers only"):
        read_result(saved(text=text))


def test_statistics_of_known_samples():
    time = summarised([float(value) for value in range(1, 12)], warmup=3, batch=2)
    assert (time.n, time.min, time.p10, time.p50, time.p90, time.max, time.mean) == (11, 1, 2, 6, 10, 11, 6)
    assert time.stdev == pytest.approx(10**0.5, rel=1e-5)
    assert flags_of(time, 0.95) == ["noisy"]
    assert flags_of(summarised([10.0, 10.1, 10.2], 0, 1), 0.8) == ["contended"]
    assert flags_of(summarised([10.0], 0, 1), None) == []
    assert flags_of(summarised([10.0], 0, 1), None, others_share=0.3) == ["contended"]


def test_samples_are_thinned_evenly_and_in_order():
    kept = thinned([float(value) for value in range(1, 201)])
    assert len(kept) == 64
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (1.0, 197.0)
    assert thinned([3.0, 1.0]) == [3.0, 1.0]


def test_only_sound_rows_on_the_fits_side_are_fitted():
    fitted, held_out = ({"op": "slot", "bytes": size} for size in (2**20, 9_437_184))
    bench = bench_named("alloc")
    assert row_of(bench, line(fitted, [1.0])).fits
    assert not row_of(bench, line(held_out, [1.0])).fits
    for flag in ("noisy", "contended", "throttled", "wrong", "not_cold", "not_warm", "not_covered"):
        assert not row_of(bench, line(fitted, [1.0], flags=[flag])).sound
    assert not row_of(bench, line(fitted, [1.0], checked=False)).sound
