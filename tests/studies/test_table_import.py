"""Users' own tables: constants and what was measured, on a card that prices, runs and validation take."""

import numpy as np
import pytest
import yaml

from moesim.cli.app import app
from moesim.costs import gemm
from moesim.costs.fitted import peaks_of
from moesim.costs.kernels import Kernels
from moesim.costs.measured import ratio
from moesim.errors import CardError, FileError
from moesim.hardware import load_gpu
from moesim.hardware.fits import Measured, Profile, read_fit_card, with_own
from moesim.scenario import load_scenario
from moesim.scenario.parts import fits_of
from moesim.studies.hardware_fit import write_fit_card
from moesim.studies.measured.catalogue import FORMS
from moesim.studies.price import price
from moesim.studies.table_import import import_table
from moesim.studies.validate_measured import validate_table

GPU = "rtx-4090"
ROWS = np.array([1.0, 4.0, 16.0, 64.0])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Products on an RTX 4090 that take half as long again as the class's form says, and one that is wrong."""
    arrow = pytest.importorskip("pyarrow", reason="needs moesim[tables]")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs moesim[tables]")
    pytest.importorskip("scipy", reason="needs moesim[tables]")
    path = tmp_path_factory.mktemp("tables") / "gemm.parquet"
    work = {"m": np.tile(ROWS, 2), "n": np.repeat([4096.0, 8192.0], 4), "k": np.full(8, 4096.0)}
    constants = with_own([])["class", "gemm", "vllm"].constants
    seconds = 1.5 * gemm.FORM.seconds(work, peaks_of(load_gpu(GPU)), constants)
    columns = {name: [*values, 1.0] for name, values in work.items()}
    columns |= {"gpu": ["rtx_4090"] * 8 + ["abacus"], "backend": ["vllm"] * 9, "latency_us": [*(seconds * 1e6), 1.0]}
    parquet.write_table(arrow.table(columns), path)
    return path


@pytest.fixture(scope="module")
def card(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("cards") / "mine.yaml"
    write_fit_card(import_table(table, "gemm").cards[GPU], FORMS, path)
    return path


def test_ratios_are_interpolated_between_sizes_as_logarithms():
    profile = Profile(columns=["n"], axis="m", measured=[Measured(shape=[8], at=[1, 100], ratio=[1, 4])])
    work = {"m": np.array([1.0, 10.0, 100.0, 101.0, 10.0]), "n": np.array([8.0, 8.0, 8.0, 8.0, 9.0])}
    # at m = 10, half way between 1 and 100 as logarithms, sqrt(1 x 4) = 2; beyond, and for another n, the form alone
    assert ratio(profile, work) == pytest.approx([1, 2, 4, 1, 1])


def test_what_was_measured_is_what_a_price_says(table, card):
    fits = with_own([card])
    found = validate_table(table, "gemm", known=fits)
    assert found.overall.mape < 0.1
    assert validate_table(table, "gemm").overall.bias == pytest.approx(-33.3, abs=0.1)  # 1 / 1.5
    assert found.outside == {"gpu abacus: no hardware card": 1}


def test_inside_is_measured_and_outside_is_extrapolated_and_said(card):
    fits, sizes = with_own([card]), {"gpu": GPU, "n": 4096.0, "k": 4096.0}
    inside, outside = (price("gemm", {**sizes, "m": m}, fits=fits) for m in (8.0, 128.0))
    assert (inside.kind, inside.constants, inside.extrapolated) == ("measured", "fitted", [])
    assert outside.kind == "assumed"
    assert outside.extrapolated == ["m 128 outside of 1 to 64"]
    assert inside.total_s == pytest.approx(1.5 * price("gemm", {**sizes, "m": 8.0}).total_s, rel=0.05)
    part = Kernels(load_gpu(GPU), fits=fits).gemm([8.0, 128.0], 4096, 4096)
    assert part.seconds[0] == pytest.approx(inside.total_s)
    assert part.extrapolated.tolist() == [False, True]
    assert part.reasons == ("m outside of 1 to 64",)


def test_a_scenario_takes_the_card(card, tmp_path):
    (tmp_path / "mine.yaml").write_text(card.read_text())
    scenario = {"model": "mixtral-8x7b", "trace": "t.npz", "hardware": {"node": "h", "fits": ["mine.yaml"]}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(scenario))
    assert (GPU, "gemm", "vllm") in fits_of(load_scenario(tmp_path / "s.yaml"))


def test_a_card_round_trips_and_a_wrong_one_is_told(card, tmp_path):
    found = read_fit_card(card)
    assert found.fits[0].profile.axis == "m"
    assert [known.shape for known in found.fits[0].profile.measured] == [[4096, 4096], [8192, 4096]]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(card.read_text().replace("axis: m", "axle: m"))
    with pytest.raises(CardError, match="axle"):
        with_own([wrong])


def test_tables_that_give_nothing_are_told(table, tmp_path):
    with pytest.raises(FileError, match="unknown kind of table 'gem'"):
        import_table(table, "gem")
    with pytest.raises(FileError, match="a table 'moe_activated' gives no constants"):
        import_table(table, "moe_activated")


def test_the_command_writes_a_card(table, tmp_path, capsys):
    card = tmp_path / "mine.yaml"
    with pytest.raises(SystemExit) as ended:
        app(["hardware", "import", "table", str(table), "-o", str(card)])
    assert ended.value.code == 0
    assert "1 rows (gpu abacus: no hardware card)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        app(["cost", "gemm", "--gpu", GPU, "--m", "8", "--n", "4096", "--k", "4096", "--fits", str(card)])
    assert "constants fitted on this GPU (measured)" in capsys.readouterr().out
