"""Who is fastest where, by how much and how surely: a saved comparison by place and cache size, and in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from moesim.report import formats
from moesim.results.comparison import ComparisonResult, RankRow, RunRow

#: More cells than this are counted in the answer, not named.
NAMED = 2


@dataclass(frozen=True)
class Standing:
    """One cell: the ranking and the runs (of every seed) at one cache size of one place.

    ``place``: the labels that not all cells share.
    """

    place: str
    gpu_experts: str
    gpu_slots: float
    rows: tuple[RankRow, ...]
    runs: tuple[RunRow, ...]

    @property
    def name(self) -> str:
        """In a sentence."""
        return ", ".join(part for part in (self.gpu_experts, self.place) if part)

    @property
    def best(self) -> RankRow | None:
        """The fastest that does not know the future; of those that do, where there is no other."""
        return next((row for row in self.rows if not row.needs_future), self.rows[0] if self.rows else None)

    @property
    def rivals(self) -> tuple[RankRow, ...]:
        """The others that don't know the future, fastest first."""
        return tuple(row for row in self.rows if row is not self.best and not row.needs_future)

    @property
    def ties(self) -> tuple[RankRow, ...]:
        """Rivals that can't be told apart from the fastest."""
        return tuple(row for row in self.rivals if row.distinguishable is False)

    @property
    def unproven(self) -> tuple[RankRow, ...]:
        """Rivals with too few requests for an interval."""
        return tuple(row for row in self.rivals if row.distinguishable is None)

    @property
    def beaten(self) -> RankRow | None:
        """The fastest rival that is surely slower."""
        return next((row for row in self.rivals if row.distinguishable), None)

    @property
    def oracle(self) -> RankRow | None:
        """The fastest that knows the future."""
        return next((row for row in self.rows if row.needs_future and row is not self.best), None)

    def is_alone(self) -> bool:
        """Whether the fastest is surely faster than every rival."""
        return self.best is not None and not self.ties and not self.unproven

    def runs_of(self, policy: str) -> tuple[RunRow, ...]:
        """One for each seed."""
        return tuple(run for run in self.runs if run.policy == policy)


@dataclass(frozen=True)
class Place:
    """A trace on a machine, with its cache sizes from small to large."""

    trace: str
    machine: str
    cells: tuple[Standing, ...]

    @property
    def name(self) -> str:
        """As a heading; empty where nothing was varied."""
        return " on ".join(part for part in (self.trace, self.machine) if part)


def places(result: ComparisonResult) -> tuple[Place, ...]:
    """In the order of the comparison file."""
    keys = list(dict.fromkeys((run.cell.trace, run.cell.machine) for run in result.runs))
    varied = [len(set(labels)) > 1 for labels in zip(*keys, strict=True)]
    found = []
    for key in keys:
        told = ", ".join(label for label, varies in zip(key, varied, strict=True) if varies)
        found.append(Place(*key, _cells(result, *key, told)))
    return tuple(found)


def _cells(result: ComparisonResult, trace: str, machine: str, place: str) -> tuple[Standing, ...]:
    runs = [run for run in result.runs if (run.cell.trace, run.cell.machine) == (trace, machine)]
    rows = [row for row in result.ranking if (row.cell.trace, row.cell.machine) == (trace, machine)]
    cells = []
    for size in dict.fromkeys(run.cell.gpu_experts for run in runs):
        members = tuple(run for run in runs if run.cell.gpu_experts == size)
        ranked = tuple(row for row in rows if row.cell.gpu_experts == size)
        cells.append(Standing(place, size, min(run.gpu_slots for run in members), ranked, members))
    return tuple(sorted(cells, key=lambda cell: cell.gpu_slots))


def answer(found: Sequence[Place]) -> str:
    """Who wins where, by how much, how surely, and how much is left."""
    cells = [cell for place in found for cell in place.cells if cell.best is not None]
    if not cells:
        return "No request decodes, so there is no time per token by which the policies could be ranked."
    if not any(cell.rivals for cell in cells):
        return "Only one policy was run, so there is nothing to rank."
    champion = _champion(cells)
    sentences = [_place_of(champion, cells), _losses(champion, cells), _lead(champion, cells)]
    sentences += [_unsure(cells), _left(cells)]
    return " ".join(sentence for sentence in sentences if sentence)


def _champion(cells: Sequence[Standing]) -> str:
    """The policy that is most often fastest or tied; among equals, the one that is slower by least in the mean."""

    def merit(policy: str) -> tuple[int, float]:
        ratios = [row.slower_than_best for cell in cells for row in cell.rows if row.policy == policy]
        return sum(policy in _leaders(cell) for cell in cells), -fmean(ratios)

    names = dict.fromkeys(row.policy for cell in cells for row in (cell.best, *cell.rivals) if row is not None)
    return max(names, key=merit)


def _leaders(cell: Standing) -> tuple[str, ...]:
    """Whom nothing shows to be slower than another."""
    leading = (cell.best, *cell.ties, *cell.unproven)
    return tuple(row.policy for row in leading if row is not None)


def _place_of(champion: str, cells: Sequence[Standing]) -> str:
    leads = [cell for cell in cells if champion in _leaders(cell)]
    alone = sum(cell.is_alone() for cell in leads)
    everywhere = "in the only case" if len(cells) == 1 else f"in all {len(cells)} cases"
    where = everywhere if len(leads) == len(cells) else f"in {len(leads)} of {len(cells)} cases"
    if alone == len(leads):
        return f"{champion} is the fastest {where}."
    shared = "surely ahead of all others in none of them" if alone == 0 else f"surely ahead of all others in {alone}"
    return f"{champion} is the fastest, or not distinguishable from the fastest, {where} ({shared})."


def _losses(champion: str, cells: Sequence[Standing]) -> str:
    """Where another is surely faster, and what the champion costs there."""
    lost = [(cell, row) for cell in cells for row in cell.rivals if row.policy == champion and row.distinguishable]
    if not lost:
        return ""
    winners = dict.fromkeys(cell.best.policy for cell, _ in lost if cell.best is not None)
    cell, row = max(lost, key=lambda pair: pair[1].slower_than_best)
    also = [f"{winner} ({_where([cell for cell, _ in lost if _wins(winner, cell)])})" for winner in winners]
    worst = f"{formats.slower(row.slower_than_best)} than {row_name(cell.best)} at {cell.name}"
    return f"Elsewhere the fastest is {', '.join(also)}; {champion} is at most {worst}."


def _wins(policy: str, cell: Standing) -> bool:
    return cell.best is not None and cell.best.policy == policy


def _where(cells: Sequence[Standing]) -> str:
    return "; ".join(cell.name for cell in cells) if len(cells) <= NAMED else _count(len(cells))


def _count(cases: int) -> str:
    return "one case" if cases == 1 else f"{cases} cases"


def _lead(champion: str, cells: Sequence[Standing]) -> str:
    """By how much the champion leads over the next, where it surely does."""
    leads = [cell.rivals[0].slower_than_best for cell in cells if _wins(champion, cell) and cell.is_alone()]
    if not leads:
        return ""
    low, high = (f"{100 * (ratio - 1):.1f}" for ratio in (min(leads), max(leads)))
    by = f"{high} %" if low == high else f"{low} to {high} %"
    return f"Where {champion} is surely ahead, the next one is {by} slower."


def _unsure(cells: Sequence[Standing]) -> str:
    few = sum(bool(cell.unproven) for cell in cells)
    return f"In {_count(few)} there are too few requests to say how sure the order is." if few else ""


def _left(cells: Sequence[Standing]) -> str:
    """What knowing the future would buy."""
    oracles = [cell.oracle for cell in cells if cell.oracle is not None]
    if not oracles:
        return ""
    speeds = sorted(1 / row.slower_than_best for row in oracles)
    low, high = (formats.times(speed) for speed in (speeds[0], speeds[-1]))
    who = _listed(dict.fromkeys(row.policy for row in oracles))
    reach = f"{low} the speed" if low == high else f"between {low} and {high} the speed"
    short = "; where that is less, the real policy does something that foresight alone does not make up for"
    told = f"With knowledge of the future, which no system has, {who} reaches {reach} of the fastest real policy"
    return f"{told}{short if speeds[0] < 1 else ''}."


def row_name(row: RankRow | None) -> str:
    """The policy of a row that may be missing."""
    return formats.UNDEFINED if row is None else row.policy


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last
