"""Two results side by side: cases that both measured, and whether their medians can be told apart."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.microbench.schema import Result, Row
from moesim.microbench.suite import case_key


@dataclass(frozen=True)
class Change:
    """A case in two results: medians in microseconds; ``distinct`` where their p10 to p90 don't overlap."""

    bench: str
    case: str
    impl: str
    first_us: float
    second_us: float
    distinct: bool

    @property
    def ratio(self) -> float:
        """Second over first."""
        return self.second_us / self.first_us


def compared(first: Result, second: Result) -> list[Change]:
    """Every case that stands in both, in the order of the first."""
    others = {_key(row): row for row in second.rows}
    return [_change(row, others[_key(row)]) for row in first.rows if _key(row) in others]


def _key(row: Row) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return row.bench, row.impl, case_key(row.case)


def _change(first: Row, second: Row) -> Change:
    apart = first.time_us.p90 < second.time_us.p10 or second.time_us.p90 < first.time_us.p10
    case = " ".join(f"{key}={value}" for key, value in first.case.items())
    return Change(first.bench, case, first.impl, first.time_us.p50, second.time_us.p50, apart)
