"""What a run costs.

- Rent: ``usd = rate * T``; power is in the rate.
- Own: ``usd = price * T / (lifetime * use) + E * tariff``: the share of a machine's life that the run takes, in which
  it works for ``use`` of the time, and its energy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bill:
    """US dollars by what they are for."""

    rent: float = 0.0
    machine: float = 0.0
    power: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.rent + self.machine + self.power


def rented(duration_s: float, usd_per_s: float) -> Bill:
    """A machine by the hour."""
    return Bill(rent=duration_s * usd_per_s)


def owned(
    duration_s: float, joules: float, price_usd: float, lifetime_s: float, use: float, usd_per_joule: float
) -> Bill:
    """A machine that was bought."""
    return Bill(machine=price_usd * duration_s / (lifetime_s * use), power=joules * usd_per_joule)
