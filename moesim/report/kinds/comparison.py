"""The report of a policy comparison, read from the saved comparison alone. Words and order: ``comparison.html.j2``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from markupsafe import Markup

from moesim.report import formats
from moesim.report.figures import comparison as drawings
from moesim.report.figures.canvas import draw
from moesim.report.figures.lines import Style, styles
from moesim.report.figures.palette import EVIDENCE
from moesim.report.render import given, render, split_warning
from moesim.report.standings import Place, Standing, answer, places
from moesim.results.comparison import Cliff, ComparisonResult, RankRow, RunRow, load_comparison_result

FILE = "comparison.json"
#: More runs than this are left to the table in the file beside the page.
MAX_ROWS = 400
LIMITS = {
    "policy": "the fewest fetches that any policy needs at this size are far fewer: a better policy could help",
    "working set": "near the fewest fetches, and even these miss most lookups: only a larger cache helps",
    "near the optimum": "near the fewest fetches that any policy needs at this size: little is left to gain",
    "not proven": "the fewest fetches at this size are not known, so nothing is said",
}


@dataclass(frozen=True)
class Winner:
    """A line of the answer: the fastest of a cell, who ties with it, who is next, and what knows the future."""

    cell: Standing
    best: RankRow
    tokens_per_s: float | None
    limited_by: str
    bound_by: str
    bound_by_share: float
    beside: Sequence[tuple[str, RankRow]]


@dataclass(frozen=True)
class Limit:
    """What limited a policy in a cell."""

    verdict: str
    fetch_ratio: float | None
    bound_by: str
    bound_by_share: float


@dataclass(frozen=True)
class Section:
    """Figures and tables of one trace on one machine."""

    place: Place
    title: str
    rankings: Sequence[Markup]
    curves: Mapping[str, Markup]
    limits: Mapping[str, Sequence[Limit | None]]
    wasted: Mapping[str, Sequence[int | None]]
    evidence: Sequence[tuple[str, float]]
    has_ceiling: bool


def page(path: Path) -> str:
    """The page of a saved comparison.

    Raises:
        ResultError: it can't be read.
    """
    return render_comparison(load_comparison_result(path))


def render_comparison(result: ComparisonResult) -> str:
    """A comparison as one self-contained HTML page: the same comparison gives the same bytes."""
    found = places(result)
    policies = list(dict.fromkeys(run.policy for run in result.runs))
    future = [policy for policy in policies if any(run.needs_future for run in result.runs if run.policy == policy)]
    looks = styles(policies, future)
    warnings = sorted((split_warning(warning) for warning in result.warnings), key=lambda told: told[0] != "stand-in")
    return render(
        "comparison.html.j2",
        result=result,
        title="Policy comparison",
        question=result.question or "Which policy is fastest, and where?",
        answer=answer(found),
        shape=shape(result, found),
        is_stand_in=any(subject == "stand-in" for subject, _ in warnings),
        warnings=warnings,
        sections=[section(result, place, looks) for place in found],
        winners=[list(winners(place)) for place in found],
        future=future,
        keys={policy: look.key() for policy, look in looks.items()},
        requests=sorted({len(run.requests) for run in result.runs}),
        seeds=sorted({run.cell.seed for run in result.runs}),
        limits=LIMITS,
        shown=result.runs[:MAX_ROWS],
        changes_output=any(run.output_changed_share for run in result.runs),
        policies=policy_settings(result),
        comparison=_yaml({key: item for key, item in result.comparison.items() if item}),
        scenario=_yaml(given(result.base_scenario)),
    )


def shape(result: ComparisonResult, found: Sequence[Place]) -> str:
    """What was varied, in a line."""
    counts = {
        "policy": len({run.policy for run in result.runs}),
        "cache size": max(len(place.cells) for place in found),
        "trace": len({place.trace for place in found}),
        "machine": len({place.machine for place in found}),
        "seed": len({run.cell.seed for run in result.runs}),
    }
    plural = {"policy": "policies"}
    told = [f"{count} {plural.get(name, name + 's') if count > 1 else name}" for name, count in counts.items()]
    return f"{', '.join(told)}: {len(result.runs):,} runs"


def winners(place: Place) -> Iterator[Winner]:
    """The fastest of every cell."""
    for cell in place.cells:
        if (best := cell.best) is not None:
            runs = cell.runs_of(best.policy)
            beside = [("not distinguishable", row) for row in cell.ties]
            beside += [("too few requests to say", row) for row in cell.unproven]
            beside += [("next", row) for row in (cell.beaten,) if row is not None]
            beside += [("bound", row) for row in (cell.oracle,) if row is not None]
            limits = runs[0].limited_by, runs[0].bound_by, runs[0].bound_by_share
            yield Winner(cell, best, _mean([run.decode_tokens_per_s for run in runs]), *limits, beside)


def section(result: ComparisonResult, place: Place, looks: Mapping[str, Style]) -> Section:
    """Everything about one trace on one machine."""
    cliffs = [cliff for cliff in result.cliffs if (cliff.trace, cliff.machine) == (place.trace, place.machine)]
    cells = [[cell.runs_of(policy) for cell in place.cells] for policy in looks]
    limits = [[_limit(runs) if runs else None for runs in row] for row in cells]
    wasted = [[_wasted(runs) if runs else None for runs in row] for row in cells]
    runs = [run for cell in place.cells for run in cell.runs]
    found = [{str(kind): share for kind, share in run.evidence_shares.items()} for run in runs]
    shares = {kind: fmean(each.get(kind, 0.0) for each in found) for kind in EVIDENCE}
    return Section(
        place=place,
        title=place.name or "All runs",
        rankings=rankings(place, looks),
        curves=curve_figures(place, looks, cliffs),
        limits=dict(zip(looks, limits, strict=True)),
        wasted={policy: row for policy, row in zip(looks, wasted, strict=True) if any(row)},
        evidence=[(kind, share) for kind, share in shares.items() if share],
        has_ceiling=bool(_ceiling(place)),
    )


def rankings(place: Place, looks: Mapping[str, Style]) -> list[Markup]:
    """A figure for each cell."""
    figures = []
    for cell in place.cells:
        title = f"{cell.gpu_experts} ({cell.gpu_slots:.0f} experts)"
        data = drawings.Ranking(title, cell.rows, looks)
        lines = sum(1 + (len(drawings.row_label(row)) - 1) // drawings.LABEL_CHARACTERS for row in cell.rows)
        if cell.rows:
            alt = f"Mean TPOT of each policy against the fastest, at {title}, with 95 % intervals"
            figures.append(draw(drawings.ranking, data, height_in=0.72 + 0.17 * lines, alt=alt))
    return figures


def curve_figures(place: Place, looks: Mapping[str, Style], cliffs: Sequence[Cliff]) -> dict[str, Markup]:
    """Speed, hit rate, fetches and wrong prefetches over cache size; what nobody has is left out."""
    slots = {cell.gpu_experts: cell.gpu_slots for cell in place.cells}
    marked = [(cliff.policy, slots[cliff.smaller], slots[cliff.larger]) for cliff in cliffs]
    figures = {}
    for name, (of, label, more) in _CURVES.items():
        points = _points(place, looks, of)
        if not any(value for line in points.values() for _, values in line for value in values):
            continue
        if name == "wasted":
            points = {policy: line for policy, line in points.items() if any(any(values) for _, values in line)}
        if name == "speed":
            more = {"cliffs": marked}
        if name == "output":
            more = {"ceiling": _ceiling(place)}
        if name == "fetches":
            more = {"floor": _fewest(place)}
        sizes = {cell.gpu_slots: cell.gpu_experts for cell in place.cells}
        data = drawings.Curves(points, looks, sizes, label, **more)
        figures[name] = draw(drawings.curves, data, height_in=2.5, alt=f"{label} over cache size, {place.name}")
    return figures


_CURVES: Mapping[str, tuple[Callable[[RunRow], float | None], str, dict[str, Any]]] = {
    "speed": (lambda run: run.decode_tokens_per_s, "decode tokens/s", {}),
    "output": (lambda run: run.output_tokens_per_s, "output tokens/s, prefill included", {}),
    "hits": (lambda run: run.hit_rate_per_lookup, "hit rate per lookup (%)", {"is_share": True}),
    "fetches": (lambda run: run.fetches, "experts fetched", {}),
    "wasted": (lambda run: run.prefetch_wasted_bytes / 1e9, "wrong prefetches (GB)", {}),
}


def _points(
    place: Place, looks: Mapping[str, Style], of: Callable[[RunRow], float | None]
) -> dict[str, list[tuple[float, list[float]]]]:
    lines = {}
    for policy in looks:
        found = ((cell.gpu_slots, [of(run) for run in cell.runs_of(policy)]) for cell in place.cells)
        line = [(slots, [value for value in values if value is not None]) for slots, values in found]
        lines[policy] = [(slots, values) for slots, values in line if values]
    return {policy: line for policy, line in lines.items() if line}


def _fewest(place: Place) -> list[tuple[float, float]]:
    """Belady MIN at each size: the lowest that a run of the first seed names, since policies may differ in rules."""
    floors = []
    for cell in place.cells:
        known = [run.fewest_fetches for run in cell.runs if run.fewest_fetches is not None]
        if known:
            floors.append((cell.gpu_slots, float(min(known))))
    return floors


def _ceiling(place: Place) -> list[tuple[float, float]]:
    """The rate with the least waiting at each size: the highest that a run names, since rules may differ."""
    ceilings = []
    for cell in place.cells:
        known = [run.ceiling_output_tokens_per_s for run in cell.runs if run.ceiling_output_tokens_per_s is not None]
        if known:
            ceilings.append((cell.gpu_slots, max(known)))
    return ceilings


def _limit(runs: Sequence[RunRow]) -> Limit:
    """Of the first seed."""
    run = runs[0]
    ratio = run.fetches / run.fewest_fetches if run.fetches is not None and run.fewest_fetches else None
    return Limit(run.limited_by, ratio, run.bound_by, run.bound_by_share)


def _wasted(runs: Sequence[RunRow]) -> int:
    """Bytes, the mean over seeds."""
    return round(fmean(run.prefetch_wasted_bytes for run in runs))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def policy_settings(result: ComparisonResult) -> list[tuple[str, str]]:
    """What each policy of the comparison sets."""
    settings: Mapping[str, Mapping[str, Any]] = result.comparison.get("policies", {})
    return [
        (name, "; ".join(f"{formats.words(key)} {formats.value(key, item)}" for key, item in keys.items()))
        for name, keys in settings.items()
    ]


def _yaml(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=100)
