"""Scores of the cost forms on tables that nobody has seen."""

import json
from pathlib import Path

import pytest

from moesim.errors import FileError
from moesim.studies.measured.catalogue import KINDS
from moesim.studies.validate_measured import validate_table

arrow = pytest.importorskip("pyarrow", reason="needs moesim[tables]")
import pyarrow.parquet as parquet  # noqa: E402

MUST = {"<=128": 12.0, ">128": 15.0}


@pytest.fixture
def moe_table(tmp_path):
    """A function: columns that differ from a plain row, to a file of rows."""

    def write(columns: dict[str, list[object]], drop: tuple[str, ...] = ()) -> Path:
        rows = len(next(iter(columns.values())))
        plain = {"gpu": "h100_sxm", "backend": "vllm", "dtype": "bfloat16", "hidden": 2048, "intermediate": 768}
        plain |= {"experts": 128, "topk": 8, "tp": 1, "ep": 1, "distribution": "balanced", "latency_us": 100.0}
        content = {name: [value] * rows for name, value in plain.items()} | columns
        path = tmp_path / "rows.parquet"
        parquet.write_table(arrow.table({name: v for name, v in content.items() if name not in drop}), path)
        return path

    return write


def test_the_json_has_the_agreed_form(moe_table):
    path = moe_table({"tokens": [1, 16, 4096], "slice": ["new shapes", "new shapes", "seen"]})
    found = json.loads(json.dumps(validate_table(path, "moe_layer").as_json()))
    assert {(row["gpu"], row["tokens"], row["slice"], row["n"]) for row in found["rows"]} == {
        ("h100_sxm", "<=128", "new shapes", 2),
        ("h100_sxm", ">128", "seen", 1),
    }
    for row in found["rows"]:
        assert row["table"] == "moe_layer"
        assert row.keys() >= {"table", "gpu", "tokens", "slice", "n", "mape", "median", "p90", "bias"}
    assert found["overall"]["n"] == 3
    assert found["outside"] == {"rows": 0, "reasons": {}}


def test_rows_outside_of_the_domain_are_counted_and_named(moe_table):
    path = moe_table(
        {
            "tokens": [1] * 5,
            "gpu": ["h100_sxm", "abacus", "h100_sxm", "h100_sxm", "h100_sxm"],
            "dtype": ["bfloat16", "bfloat16", "ternary", "bfloat16", "bfloat16"],
            "distribution": ["balanced", "balanced", "balanced", "zipf", "balanced"],
            "latency_us": [100.0, 100.0, 100.0, 100.0, None],
        }
    )
    found = validate_table(path, "moe_layer")
    assert found.overall.n == 1
    assert found.outside == {
        "gpu abacus: no hardware card": 1,
        "dtype ternary": 1,
        "distribution zipf": 1,
        "latency_us missing or not above zero": 1,
    }


def test_a_gpu_without_measurements_is_priced_by_the_class_and_says_so(moe_table):
    found = validate_table(moe_table({"tokens": [8], "gpu": ["l40s"]}), "moe_layer")
    assert found.cells[0].constants == "datasheet and class constants"


def test_rows_outside_of_the_fitted_range_are_counted(moe_table):
    found = validate_table(moe_table({"tokens": [8, 8, 8], "hidden": [2048, 20480, 1024]}), "moe_layer")
    assert found.notes[-1] == "2 rows lie outside of the fitted range: extrapolated"


def test_it_says_where_the_routing_is_from(moe_table):
    found = validate_table(moe_table({"tokens": [8, 16], "distribution": ["power_law_1.2"] * 2}), "moe_layer")
    assert found.notes == ("routing of 0 rows from workload statistics, of 2 from moesim's own draws",)


def test_a_file_of_another_kind_is_refused_with_what_is_missing(moe_table):
    with pytest.raises(FileError, match="has no column tokens"):
        validate_table(moe_table({"slice": ["a"]}), "moe_layer")
    with pytest.raises(FileError, match=r"did you mean 'moe_layer'"):
        validate_table(moe_table({"tokens": [1]}), "moe_layr")


@pytest.mark.parametrize("kind", KINDS)
def test_every_shared_row_is_scored_or_named(kind, shared_data):
    path = shared_data / "measured" / f"{kind}.parquet"
    found = validate_table(path, kind)
    assert found.overall.n + sum(found.outside.values()) == parquet.read_metadata(path).num_rows


def test_the_fitted_gpus_stay_inside_the_targets(shared_data):
    for cell in validate_table(shared_data / "measured" / "moe_layer.parquet", "moe_layer").cells:
        if cell.slice == "bfloat16 tp*ep<=8":
            assert cell.score.mape < MUST[cell.bucket], cell
            assert cell.score.mape < min(value for value in cell.naive.values() if value is not None), cell


def test_sizes_that_no_layer_can_have_are_left_out_and_named(moe_table):
    tokens = [float("nan"), 0, -5, 8, 8, 8, 8]
    path = moe_table({"tokens": tokens, "topk": [8, 8, 8, 999, 8, 8, 8], "ep": [1, 1, 1, 1, 3, 1, 1],
                      "latency_us": [100.0] * 5 + [float("inf"), 100.0]})  # fmt: skip
    found = validate_table(path, "moe_layer")
    assert found.overall.n == 1
    assert found.outside == {
        "tokens missing or not above zero": 3,
        "topk above experts": 1,
        "experts do not divide over ep": 1,
        "latency_us missing or not above zero": 1,
    }


def test_columns_that_nobody_asked_for_are_no_fault(moe_table):
    nested = [{"a": 1}, {"a": 2}]
    assert validate_table(moe_table({"tokens": [8, 9], "notes": nested, "extra": [1, 2]}), "moe_layer").overall.n == 2


def test_a_column_of_the_wrong_kind_is_refused(moe_table):
    with pytest.raises(FileError, match="tokens must hold numbers"):
        validate_table(moe_table({"tokens": ["8"]}), "moe_layer")
    with pytest.raises(FileError, match="gpu must hold text"):
        validate_table(moe_table({"tokens": [8], "gpu": [1]}), "moe_layer")


def test_a_file_without_rows_has_no_score(moe_table):
    columns = {name: arrow.array([], kind) for name, kind in (("tokens", "int64"), ("gpu", "string"))}
    columns |= {name: arrow.array([], "string") for name in ("backend", "dtype", "distribution")}
    numbers = ("hidden", "intermediate", "experts", "topk", "tp", "ep", "latency_us")
    columns |= {name: arrow.array([], "float64") for name in numbers}
    found = validate_table(moe_table(columns), "moe_layer")
    assert (found.cells, found.overall.n, found.overall.mape) == ((), 0, None)


def test_many_token_counts_are_drawn_at_some_and_interpolated(moe_table):
    tokens = list(range(1, 2001))
    path = moe_table({"tokens": tokens, "distribution": ["power_law_1.2"] * 2000, "ep": [2] * 2000})
    found = validate_table(path, "moe_layer")
    assert found.overall.n == 2000
    assert found.notes[1] == "of these, 2000 between the token counts for which draws were made"


def test_a_layer_by_its_activated_experts_is_scored_for_the_model_it_names(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = {
        "gpu": ["h100_sxm"] * 3,
        "model": ["Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B", "Abacus-1B"],
        "tokens": [16, 16, 16],
        "activated_experts": [64, 128, 64],
        "latency_us": [250.0, 480.0, 1.0],
    }
    parquet.write_table(arrow.table(rows), path)
    found = validate_table(path, "moe_activated")
    assert found.outside == {"model Abacus-1B: no card of a model with experts": 1}
    assert found.overall.n == 2
    assert found.cells[0].naive.keys() == {"roofline, all experts", "roofline, distinct experts"}
