"""Numbers as text."""

import pytest

from moesim.report import formats
from moesim.results.result import ConstantRow


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0.0 %"), (0.947, "94.7 %"), (1.0, "100.0 %"), (0.0083, "0.83 %"), (0.000012, "0.0012 %")],
)
def test_percent(share, text):
    assert formats.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.5, "0.500"), (29.96, "30.0"), (999.6, "1,000"), (123456.7, "123,457")]
)
def test_number(value, text):
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("FLOP/s", 165e12, "165 TFLOP/s"),
        ("1", 0.55, "55 %"),
        ("B/s", 1008e9, "1.01 TB/s"),
        ("s", 53e-6, "53.0 µs"),
    ],
)
def test_a_constant_is_shown_in_its_unit(unit, value, text):
    row = ConstantRow(name="a share", value=value, unit=unit, source="", kind="assumed")
    assert formats.constant(row) == text


def test_a_constant_that_is_no_share_is_a_plain_number():
    row = ConstantRow(name="gpu.sm_count", value=132, unit="1", source="", kind="datasheet")
    assert formats.constant(row) == "132"


@pytest.mark.parametrize(
    ("key", "item", "text"),
    [
        ("storage", None, "–"),
        ("labels", [], "–"),
        ("transforms", ["a", "b"], "a, b"),
        ("host_memory_bytes", 2_000_000, "2.00 MB"),
        ("total_params", 20914757184, "20,914,757,184"),
        ("prefetch", {"name": "next-gate", "lookahead": 2}, "next-gate, lookahead 2"),
        ("scope", "global", "global"),
    ],
)
def test_values_by_their_key(key, item, text):
    assert formats.value(key, item) == text
