"""Cross-validation: no row is predicted by constants that saw its like."""

import numpy as np
import pytest

from moesim.costs.gemm import CONSTANTS, FORM
from moesim.studies.cross_validation import _without_gpus, _without_shapes, cross_validate
from moesim.studies.hardware_fit import measured_groups
from moesim.studies.measured.catalogue import KINDS
from moesim.studies.measured.kinds import card_peaks
from moesim.studies.measured.table import Table, group_codes

pytest.importorskip("scipy", reason="needs moesim[tables]")

SIZES = [2.0**exponent for exponent in range(5, 13)]
START = {constant.name: constant.start for constant in CONSTANTS}


@pytest.fixture
def table():
    """Exact times of the form at its starting constants, on two GPUs."""
    m, n, k = (axis.ravel() for axis in np.meshgrid([1.0, 64.0, 4096.0], SIZES, SIZES, indexing="ij"))
    gpus = ("a100_sxm", "h100_sxm")
    seconds = [FORM.seconds({"m": m, "n": n, "k": k}, card_peaks(card, "bf16"), START) for card in CARDS]
    numbers = {name: np.tile(values, 2) for name, values in (("m", m), ("n", n), ("k", k))}
    numbers["latency_us"] = np.concatenate(seconds) * 1e6
    plain = np.zeros(2 * len(m), dtype=np.int64)
    texts = {"gpu": (np.repeat([0, 1], len(m)), gpus), "backend": (plain, ("vllm",)), "dtype": (plain, ("bfloat16",))}
    return Table("gemm", 2 * len(m), numbers, texts)


CARDS = ("a100-80gb-sxm", "h100-sxm")


def test_shapes_and_gpus_are_left_out_whole(table):
    groups = measured_groups(table, KINDS["gemm"], None)
    label, _ = group_codes([table.number("n"), table.number("k")])
    seen = []
    for train, tests, _ in _without_shapes(groups, label):
        trained = {shape for measured in train for shape in label[measured.group.rows]}
        tested = {shape for group in tests for shape in label[group.rows]}
        assert not trained & tested
        seen += [row for group in tests for row in group.rows]
    assert sorted(seen) == list(range(table.size))
    for train, tests, use_class in _without_gpus(groups):
        assert use_class
        assert not {measured.group.card for measured in train} & {group.card for group in tests}


@pytest.mark.parametrize("way", ["shapes", "gpus"])
def test_times_that_follow_the_form_are_predicted_without_their_like(table, way):
    found = cross_validate(table, KINDS["gemm"], None, way)
    assert found.overall.n == table.size
    assert found.overall.mape < 2.0
    told = {"shapes": "fitted on this GPU", "gpus": "datasheet and class constants"}[way]
    assert {cell.constants for cell in found.cells} == {told}
