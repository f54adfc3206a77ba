"""Fits: they find constants that made the data, and they remake the committed cards to the byte."""

import numpy as np
import pytest

from moesim.costs.fitted import Peaks
from moesim.costs.gemm import FORM
from moesim.errors import FileError
from moesim.hardware.fits import CARDS, FitCard, read_fit_card
from moesim.studies.fitting import Sample, fit_constants
from moesim.studies.hardware_fit import choose_card, fit, fit_card_text
from moesim.studies.measured.catalogue import FORMS, KINDS

pytest.importorskip("pyarrow", reason="needs moesim[tables]")
pytest.importorskip("scipy", reason="needs moesim[tables]")

PEAKS = Peaks(bytes_per_s=2e12, flop_per_s=3e14, l2_bytes=4e7, sms=108, link_bytes_per_s=3e11)


def test_a_fit_finds_the_constants_that_made_the_data():
    true = {constant.name: constant.start for constant in FORM.constants}
    true |= {"launch": 6e-6, "bandwidth_share": 0.7, "arithmetic_share": 0.6}
    random = np.random.default_rng(0)
    work = {name: 2.0 ** random.integers(low, 14, 500) for name, low in (("m", 0), ("n", 6), ("k", 6))}
    seconds = FORM.seconds(work, PEAKS, true) * np.exp(random.normal(0, 0.02, 500))
    found = fit_constants(FORM, [Sample(work, PEAKS, seconds, np.zeros(500, dtype=np.int64))]).constants
    for name in ("launch", "bandwidth_share", "arithmetic_share"):
        assert found[name] == pytest.approx(true[name], rel=0.03)


def test_a_constant_without_bearing_on_the_rows_is_called_assumed():
    work = {"bus_bytes": np.logspace(3, 9, 40), "gpus": np.full(40, 2.0), "int8_reduction": np.zeros(40)}
    form = FORMS["collective"]
    true = {constant.name: constant.start for constant in form.constants}
    fitted = fit_constants(form, [Sample(work, PEAKS, form.seconds(work, PEAKS, true), np.zeros(40, dtype=np.int64))])
    assert {"step", "int8"} <= set(fitted.assumed)
    assert "alpha" not in fitted.assumed


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_cards_are_what_the_tables_give(kind, shared_data):
    cards = fit({kind: shared_data / "measured" / f"{kind}.parquet"})
    for name, card in cards.items():
        operations = {entry.operation for entry in card.fits}
        committed = read_fit_card(CARDS / f"{name}.yaml")
        same = [entry for entry in committed.fits if entry.operation in operations]
        only = FitCard.model_construct(name=name, title=committed.title, fits=same)
        assert fit_card_text(card, FORMS) == fit_card_text(only, FORMS)


def test_a_gpu_that_the_tables_lack_is_told():
    with pytest.raises(FileError, match="no rows of 'h101'"):
        choose_card({"h100-sxm": FitCard(name="h100-sxm", title="", fits=[])}, "h101")
