"""Energy and money of a run, from what it did and what its machine draws and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from moesim.costs.energy import draws, spent
from moesim.costs.money import Bill, owned, rented
from moesim.hardware import Kind, Node, weakest
from moesim.results.result import Economy, EnergyRow, MoneyRow
from moesim.scenario.schema import EconomicsSpec
from moesim.units import parse


def economy(wanted: EconomicsSpec, node: Node, duration_s: float, busy_s: Mapping[str, Mapping[str, float]]) -> Economy:
    """What a run took.

    Args:
        busy_s: part -> state -> seconds (:mod:`moesim.costs.energy`).
    """
    parts, lacking = draws(node)
    rows = [EnergyRow(**asdict(row)) for row in spent(parts, duration_s, busy_s)]
    joules = None if lacking else sum(row.joules for row in rows)
    basis, money, missing = _money(wanted, node, duration_s, joules, rows)
    return Economy(
        joules=joules,
        energy=rows,
        basis=basis,
        usd=sum(row.usd for row in money) if money else None,
        money=money,
        energy_lacking=lacking,
        money_lacking=missing,
    )


def _money(
    wanted: EconomicsSpec, node: Node, duration_s: float, joules: float | None, energy: list[EnergyRow]
) -> tuple[str | None, list[MoneyRow], list[str]]:
    rent, price = _rent(wanted, node), _purchase(wanted, node)
    rents = wanted.basis == "rent" or (wanted.basis == "auto" and rent is not None and wanted.purchase is None)
    if rents:
        if rent is None:
            return None, [], [f"hardware card {node.gpu.name} has no rent: give economics.rent"]
        usd_per_s, meaning, kind = rent
        return "rent", [MoneyRow(item="rent", usd=rented(duration_s, usd_per_s).rent, meaning=meaning, kind=kind)], []
    if price is None:
        return None, [], ["no price of this machine on its card: give economics.purchase or economics.rent"]
    if joules is None:
        return None, [], ["owning pays for energy, which is unknown"]
    usd, meaning, kind = price
    lifetime_s, tariff = parse(wanted.lifetime, "time"), parse(wanted.power, "energy_price")
    bill = owned(duration_s, joules, usd, lifetime_s, wanted.use, tariff)
    return "own", _owned_rows(wanted, bill, meaning, kind, weakest(row.kind for row in energy)), []


def _owned_rows(wanted: EconomicsSpec, bill: Bill, meaning: str, kind: Kind, energy_kind: Kind) -> list[MoneyRow]:
    spread = f"{meaning}, over {wanted.lifetime} at {wanted.use:.0%} use"
    return [
        MoneyRow(item="machine", usd=bill.machine, meaning=spread, kind=weakest((kind, "assumed"))),
        MoneyRow(item="power", usd=bill.power, meaning=wanted.power, kind=weakest((energy_kind, "assumed"))),
    ]


Priced = tuple[float, str, Kind]


def _rent(wanted: EconomicsSpec, node: Node) -> Priced | None:
    """USD per second of one GPU with its share of the machine."""
    if wanted.rent is not None:
        return parse(wanted.rent, "money_rate"), f"{wanted.rent}, given", "assumed"
    low, high = node.gpu.price.cloud_low, node.gpu.price.cloud_high
    if low is None or high is None:
        return None
    hourly = f"{low.value * 3600:.2f} to {high.value * 3600:.2f} USD/h, its middle"
    return (low.value + high.value) / 2, hourly, weakest((low.kind, high.kind))


def _purchase(wanted: EconomicsSpec, node: Node) -> Priced | None:
    """USD of one GPU with its share of the machine."""
    if wanted.purchase is not None:
        return parse(wanted.purchase, "money"), f"{wanted.purchase}, given", "assumed"
    msrp = node.price.msrp or (node.gpu.price.msrp if node.gpu.unified_memory else None)
    if msrp is None:
        return None
    share = f" for {node.gpu_count} GPUs" if node.gpu_count > 1 else ""
    return msrp.value / node.gpu_count, f"{msrp.value:,.0f} USD{share}", msrp.kind
