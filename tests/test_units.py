"""Quantities with units."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.units import UNITS, format_bandwidth, format_bytes, format_seconds, parse


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("64 GiB", "bytes", 64 * 2**30), ("1.5GB", "bytes", 1.5e9), ("25 GB/s", "bandwidth", 25e9),
        ("100 Gbit/s", "bandwidth", 12.5e9), ("10 us", "time", 1e-5), ("10 µs", "time", 1e-5), ("1e3 ms", "time", 1.0),
        ("165 TFLOPS", "compute_rate", 165e12), ("1_000 B", "bytes", 1000), ("3.6 USD/h", "money_rate", 0.001),
    ],
)  # fmt: skip
def test_quantities_become_si(text, dimension, value):
    assert math.isclose(parse(text, dimension), value)


@pytest.mark.parametrize(
    "text", ["64", "", " ", "GiB", "64 gib", "-1 GiB", "1e400 GiB", "nan GiB", "1 GiB/s", "1 2 GiB", 64, None, True]
)
def test_what_is_no_quantity_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"24 GiB|finite and not negative"):
        parse(text, "bytes")


@given(st.floats(0, 1e12), st.sampled_from(sorted(UNITS["bytes"])))
def test_number_and_unit_multiply(number, unit):
    assert parse(f"{number!r} {unit}", "bytes") == number * UNITS["bytes"][unit]


@given(st.text(max_size=20), st.sampled_from(sorted(UNITS)))
def test_any_text_is_a_finite_quantity_or_refused(text, dimension):
    try:
        value = parse(text, dimension)
    except ValueError:
        return
    assert math.isfinite(value)
    assert value >= 0


def test_formats():
    assert [format_bytes(1.5e9), format_seconds(0.0123), format_seconds(None)] == ["1.50 GB", "12.3 ms", "–"]
    assert [format_bandwidth(2.6e10), format_seconds(0), format_bytes(999.6)] == ["26.0 GB/s", "0 s", "1.00 kB"]
