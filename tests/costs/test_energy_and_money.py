"""Energy and money against values worked out by hand."""

import pytest

from moesim.costs.energy import BOARD_WATTS, DRIVE_WATTS, SUPPLY_EFFICIENCY, draws, spent
from moesim.costs.money import owned, rented
from moesim.hardware import build_node
from moesim.scenario.economy import economy
from moesim.scenario.schema import EconomicsSpec

DESKTOP = "desktop-rtx4090-ddr5-64g-nvme4"


def test_energy_by_hand():
    parts, lacking = draws(build_node(DESKTOP))
    assert not lacking
    busy = {"GPU": {"arithmetic": 2.0, "memory": 3.0, "launches": 1.0}, "drive": {"reading": 4.0}}
    rows = {(row.part, row.state): row for row in spent(parts, 10.0, busy)}
    # RTX 4090, 450 W: 2 s at 95 %, 3 s at 70 %, 1 s at 40 %, and 4 s of waiting at 25 %; at the wall over 0.9
    wanted = {"arithmetic": 855.0, "memory": 945.0, "launches": 180.0, "waiting": 450.0}
    found = {state: rows["GPU", state].joules * SUPPLY_EFFICIENCY for state in wanted}
    assert found == pytest.approx(wanted)
    # the drive reads for 4 s and idles for 6; the board takes its watts all along; no expert ran on the CPU
    assert rows["drive", "reading"].joules == pytest.approx(4 * DRIVE_WATTS["reading"] / SUPPLY_EFFICIENCY)
    assert rows["drive", "idle"].seconds == 6
    assert rows["board and fans", "always"].joules == pytest.approx(10 * BOARD_WATTS / SUPPLY_EFFICIENCY)
    assert ("CPU and DRAM", "experts") not in rows


def test_a_machine_of_shared_memory_is_one_part_and_a_card_without_power_is_named():
    assert [draw.part for draw in draws(build_node("jetson-agx-orin-64g"))[0]] == ["GPU", "drive"]
    _, lacking = draws(build_node("macbook-m4-max-128g"))
    assert lacking == ["hardware card apple-m4-max has no tdp"]
    found = economy(EconomicsSpec(), build_node("macbook-m4-max-128g"), 10.0, {})
    assert (found.joules, found.usd) == (None, None)
    assert found.money_lacking == ["owning pays for energy, which is unknown"]


def test_money_by_hand():
    # an hour at 3.60 USD/h
    assert rented(3600, 0.001).total == pytest.approx(3.6)
    # 2000 USD over 2e7 s of which half is used: 3600 s are 0.72 USD; 3.6 MJ = 1 kWh at 0.15 USD
    bill = owned(3600, 3.6e6, 2000, 2e7, 0.5, 0.15 / 3.6e6)
    assert (bill.machine, bill.power) == (pytest.approx(0.72), pytest.approx(0.15))


def test_rent_is_the_middle_of_the_cards_range_unless_given():
    node = build_node("server-h100-sxm")
    low, high = node.gpu.price.cloud_low, node.gpu.price.cloud_high
    found = economy(EconomicsSpec(), node, 3600.0, {})
    assert found.basis == "rent"
    assert found.usd == pytest.approx((low.value + high.value) / 2 * 3600)
    assert economy(EconomicsSpec(rent="2 USD/h"), node, 1800.0, {}).usd == pytest.approx(1.0)


def test_a_given_price_means_owning_and_a_changed_machine_has_no_price():
    node = build_node("server-h100-sxm")
    found = economy(
        EconomicsSpec(purchase="30000 USD", lifetime="1000 h", use=1.0, power="1 USD/kWh"), node, 3600.0, {}
    )
    assert found.basis == "own"
    assert found.money[0].usd == pytest.approx(30.0)
    assert found.money[1].usd == pytest.approx(found.joules / 3.6e6)
    changed = build_node(DESKTOP, gpu="rtx-3090")
    assert economy(EconomicsSpec(basis="own"), changed, 1.0, {}).usd is None
    assert economy(EconomicsSpec(basis="own"), build_node(DESKTOP), 1.0, {}).usd > 0
