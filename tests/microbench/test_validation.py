"""Cards against results: errors, sides, targets and spreads, on machines whose constants are known."""

from __future__ import annotations

import hashlib

import pytest
from microbench_builders import result_of, rows_of

from moesim.hardware import MachineSpec, read_card
from moesim.microbench.card import card_text
from moesim.microbench.comparing import compared
from moesim.microbench.validation import TARGETS, errors_of, validate_card
from moesim.microbench.validation_report import markdown, validation_json

LINEAR = {"latency": 7e-6, "bandwidth": 2e10}
COPY = {"latency": 5e-6, "per_segment": 3e-6, "bandwidth": 55e9, "ramp": 4e-6, "knee": 2e5}


@pytest.fixture
def saved(tmp_path):
    """A function: rows to a result file."""

    def save(rows, name="result.json"):
        path = tmp_path / name
        path.write_text(result_of(rows).to_json())
        return path

    return save


def fitted(path):
    card = path.with_suffix(".yaml")
    card.write_text(card_text(path, path.stem))
    return read_card(card, MachineSpec)


def scaled(row, factor):
    times = {name: getattr(row.time_us, name) * factor for name in ("min", "p10", "p50", "p90", "max", "mean")}
    return row.model_copy(update={"time_us": row.time_us.model_copy(update=times)})


def test_a_machine_that_obeys_its_form_is_predicted(saved):
    path = saved(rows_of("copy", COPY, noise=0.01))
    found = validate_card(fitted(path), path)
    assert found.fitted_from_it
    assert found.result_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    lines = {(line.name, line.side): line for line in found.classes}
    assert set(lines) == {
        (name, side) for name in ("copies of 1 MB and more", "smaller copies") for side in ("fit", "holdout")
    } - {("smaller copies", "holdout")}
    large = lines["copies of 1 MB and more", "holdout"]
    assert (large.target, large.verdict) == (TARGETS["copies of 1 MB and more"], "reached")
    assert large.errors.median < 2
    assert 1 < large.errors.spread < 5


def test_held_out_rows_that_are_slower_than_predicted_miss_the_target(saved):
    rows = rows_of("copy", COPY)
    path = saved(rows)
    card = fitted(path)
    slower = [scaled(row, 1.25) if row.split == "holdout" else row for row in rows]
    found = validate_card(card, saved(slower, "slower.json"))
    assert not found.fitted_from_it
    large = next(line for line in found.classes if line.side == "holdout")
    assert large.errors.median == pytest.approx(20, abs=0.5)  # 1 - 1 / 1.25
    assert large.errors.bias == pytest.approx(-20, abs=0.5)
    assert large.verdict == "missed"
    assert next(line for line in found.classes if line.side == "fit").verdict == "reached"
    text = markdown(found)
    assert "5 %: missed" in text
    assert "The card was fitted from another result" in text


def test_an_error_inside_the_spread_is_an_error_all_the_same():
    row = rows_of("alloc", LINEAR)[0]
    wide = row.model_copy(update={"time_us": row.time_us.model_copy(update={"p10": 1.0, "p50": 10.0, "p90": 100.0})})
    errors = errors_of([(wide, 12e-6), (wide, 200e-6)])
    assert (errors.rows, errors.inside, errors.spread) == (2, 1, 990.0)
    assert (errors.median, errors.bias, errors.worst_error) == (960.0, 960.0, 1900.0)


def test_flagged_rows_do_not_count_but_are_counted(saved):
    rows = rows_of("copy", COPY)
    path = saved(rows)
    card = fitted(path)
    spoilt = [
        row if index % 2 else scaled(row, 10).model_copy(update={"flags": ["noisy"]}) for index, row in enumerate(rows)
    ]
    found = validate_card(card, saved(spoilt, "spoilt.json"))
    assert found.unsound == (len(rows) + 1) // 2
    assert all(line.errors.median < 0.1 for line in found.classes)


def test_rows_without_constants_are_counted(saved):
    path = saved(rows_of("copy", COPY, keep=lambda case: case["dir"] == "h2d"))
    both = saved(rows_of("copy", COPY), "both.json")
    assert validate_card(fitted(path), both).unpredicted == len(rows_of("copy", COPY)) - len(
        rows_of("copy", COPY, keep=lambda case: case["dir"] == "h2d")
    )


def test_held_out_rows_stand_first_and_may_stand_alone(saved):
    path = saved(rows_of("copy", COPY))
    found = validate_card(fitted(path), path)
    text = markdown(found)
    assert text.index("## Held out") < text.index("## Fitted")
    assert "## Fitted" not in markdown(found, held_out_only=True)
    assert "Measured with an older suite" in text  # the builders' result has a suite of its own
    assert "was not recorded" in text
    assert validation_json(found) == validation_json(validate_card(fitted(path), path))


def test_results_are_compared_case_by_case():
    rows = rows_of("alloc", LINEAR, noise=0.01)
    doubled = [scaled(row, 2) for row in rows]
    same, apart = compared(result_of(rows), result_of(rows)), compared(result_of(rows), result_of(doubled))
    assert len(same) == len(apart) == len(rows)
    assert all(change.ratio == 1 and not change.distinct for change in same)
    assert all(change.ratio == pytest.approx(2) and change.distinct for change in apart)
    assert compared(result_of(rows), result_of(rows_of("copy", COPY))) == []
