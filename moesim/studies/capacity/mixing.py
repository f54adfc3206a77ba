"""Machine types mixed: capacities of single replicas under each load, the covering program over them, and its answer
simulated again with each machine's share of its load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.optimal.cover import cover
from moesim.results.capacity import Mix, MixRow
from moesim.studies.capacity.changes import loaded
from moesim.studies.capacity.plan import LoadedPlan
from moesim.studies.capacity.search import Candidate, Found, Search

#: Configurations of each load that take part: the cheapest ones that carry it.
OPTIONS = 4
#: Shares between the one that a replica is known to carry and the next larger one that it is known not to.
STEPS = 4
#: A mix that fails when it is simulated is solved again with so much less capacity, so often.
LESS, TRIES = 0.93, 3


@dataclass(frozen=True)
class _Column:
    """A configuration that may take part."""

    candidate: Candidate
    cost: float


def mix_of(loaded_plan: LoadedPlan, searches: Sequence[tuple[Search, Found]]) -> Mix | None:
    """The cheapest mix; None where there is nothing to mix: an unmet load, one way only, or a load without a rate."""
    columns = _columns(searches)
    if not loaded_plan.base.scenario.serving or any(not _met(found) for _, found in searches) or len(columns) < 2:
        return None
    if any(_factor(loaded_plan, search, columns[0].candidate, 0.5) is None for search, _ in searches):
        return None
    capacity = np.array([[_capacity(loaded_plan, search, found, c) for search, found in searches] for c in columns])
    for _ in range(TRIES):
        mix = _solved(loaded_plan, searches, columns, capacity)
        if mix is None or mix.met:
            return mix
        capacity = capacity * LESS
    return mix


def _columns(searches: Sequence[tuple[Search, Found]]) -> list[_Column]:
    """The cheapest configurations that carry some load, one replica of each."""
    found: dict[tuple[tuple[str, str], ...], _Column] = {}
    for search, told in searches:
        met = sorted(_met(told), key=lambda place: told.rows[place].usd_per_hour)
        candidates = dict(told.simulated)
        kinds = dict.fromkeys(candidates[place].configuration.options for place in met)
        for options in list(kinds)[:OPTIONS]:
            place = next(p for p in met if candidates[p].configuration.options == options)
            one = replace(candidates[place], replicas=1)
            found.setdefault(options, _Column(one, search.usd_per_hour(one)))
    return list(found.values())


def _met(found: Found) -> list[int]:
    return [place for place, _ in found.simulated if (f := found.rows[place].figures) is not None and f.met]


def _factor(loaded_plan: LoadedPlan, search: Search, candidate: Candidate, factor: float) -> dict[str, object] | None:
    """Settings of a share of the load; closed-loop users can't be divided into parts of one."""
    settings = dict(search.settings(candidate.configuration, candidate.replicas))
    more = loaded(loaded_plan.base, settings, factor)
    return None if more is None or "arrivals.users" in more else more


def _capacity(loaded_plan: LoadedPlan, search: Search, found: Found, column: _Column) -> float:
    """The share of a load that one replica carries: at least what it did in the search, refined by a few more runs."""
    options, candidates = column.candidate.configuration.options, dict(found.simulated)
    own = [p for p, c in found.simulated if c.configuration.options == options]
    met = set(_met(found))
    counts = sorted(candidates[place].replicas for place in own if place in met)
    if not counts:
        return 0.0
    low = 1 / counts[0]
    high = 1 / (counts[0] - 1) if counts[0] > 1 else 2.0
    shares = [low + (high - low) * (step + 1) / (STEPS + 1) for step in range(STEPS)]
    settings = [_factor(loaded_plan, search, column.candidate, share) or {} for share in shares]
    results = search.simulate([(column.candidate, more) for more in settings])
    for share, result in zip(shares, results, strict=True):
        figures = search.row(column.candidate, result).figures
        if figures is None or not figures.met:
            break
        low = share
    return low


def _solved(
    loaded_plan: LoadedPlan,
    searches: Sequence[tuple[Search, Found]],
    columns: list[_Column],
    capacity: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> Mix | None:
    plan = loaded_plan.plan
    stocks = [([place], c.candidate.configuration.most_gpus) for place, c in enumerate(columns)]
    limited = [(members, most) for members, most in stocks if most is not None]
    limited.append((list(range(len(columns))), plan.most_gpus))
    solved = cover([c.cost for c in columns], capacity, [c.candidate.survey.gpus for c in columns], limited)
    if solved.count is None:
        return None
    rows: list[MixRow] = []
    for load, (search, _) in enumerate(searches):
        carried = float((capacity[:, load] * solved.count[:, load]).sum())
        wanted = []
        for place in np.flatnonzero(solved.count[:, load]).tolist():
            count = int(solved.count[place, load])
            candidate = replace(columns[place].candidate, replicas=count)
            wanted.append((place, candidate, float(capacity[place, load]) * count / carried))
        results = search.simulate([(c, _factor(loaded_plan, search, c, share) or {}) for _, c, share in wanted])
        for (place, candidate, share), result in zip(wanted, results, strict=True):
            figures = search.row(candidate, result).figures
            rows.append(
                MixRow(
                    load=search.name,
                    options=dict(candidate.configuration.options),
                    replicas=candidate.replicas,
                    share=share,
                    capacity_per_replica=float(capacity[place, load]),
                    met=figures is not None and figures.met,
                )
            )
    alone = [min(found.rows[place].usd_per_hour for place in _met(found)) for _, found in searches]
    cost = sum(float(c.cost) * int(solved.count[place].sum()) for place, c in enumerate(columns))
    return Mix(
        rows=rows,
        usd_per_hour=cost,
        alone_usd_per_hour=sum(alone),
        status=solved.answer.status,
        met=all(row.met for row in rows),
    )
