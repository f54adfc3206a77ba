"""Curves as files."""

import pytest

from moesim.errors import FileError
from moesim.report.curves import plot_hit_curve

CURVES = {
    "lru": [{"capacity_bytes": 2**30, "hit_rate_per_lookup": 0.5}, {"capacity_bytes": 0, "hit_rate_per_lookup": None}],
    "belady": [],
}


@pytest.mark.parametrize(("suffix", "magic"), [(".svg", b"<?xml"), (".PNG", b"\x89PNG"), (".pdf", b"%PDF")])
def test_the_suffix_is_the_format_and_the_bytes_repeat(tmp_path, suffix, magic):
    path = tmp_path / "deep" / f"curve{suffix}"
    plot_hit_curve(CURVES, "a trace", path)
    first = path.read_bytes()
    plot_hit_curve(CURVES, "a trace", path)
    assert first.startswith(magic)
    assert path.read_bytes() == first


def test_other_suffixes_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(FileError, match=r"use \.svg"):
        plot_hit_curve(CURVES, "a trace", tmp_path / "curve.bmp")
    assert list(tmp_path.iterdir()) == []
