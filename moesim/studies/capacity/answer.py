"""From searches to the answer: what to take, how near the limits it is, what binds, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from moesim.results.capacity import (
    CandidateRow,
    CapacityResult,
    Figures,
    PartShare,
    Recommendation,
    Sensitivity,
    Upgrade,
)
from moesim.results.result import Result, TimeShare
from moesim.results.saved import SavedResult
from moesim.results.serving import ServingResult
from moesim.studies.capacity.changes import LOAD_FACTORS, changes, error_bar, loaded
from moesim.studies.capacity.mixing import mix_of
from moesim.studies.capacity.plan import LoadedPlan, configurations
from moesim.studies.capacity.search import Candidate, Found, Search
from moesim.studies.execution import Executor
from moesim.units import format_bytes, format_seconds, parse
from moesim.version import __version__

#: So many met candidates, the cheapest first, are tried at the long end of their error bars.
SAFE_TRIES = 8
#: So many parts are named as worth measuring.
MEASURED_FIRST = 3
PRICE_CHANGE = 1.3


def answer(
    loaded_plan: LoadedPlan, store: Path, executor: Executor, progress: Callable[[str], None] = lambda _: None
) -> CapacityResult:
    """Search every load, and say what to take.

    Raises:
        ScenarioError: the plan's scenario can't be planned with.
    """
    plan = loaded_plan.plan
    candidates: list[CandidateRow] = []
    recommendations: list[Recommendation] = []
    warnings: list[str] = []
    searches: list[tuple[Search, Found]] = []
    labels: list[str] = []
    for name in plan.loads:
        search = Search(loaded_plan, name, store, executor, progress)
        found = search.run()
        searches.append((search, found))
        if found.simulated:
            recommendations.append(_Advice(loaded_plan, search, found, len(candidates)).recommendation())
            labels = _labels(next(iter(found.results.values()), None)) or labels
        else:
            warnings.append(f"{name}: no configuration fits; each says why among the candidates.")
        candidates.extend(found.rows)
    for advice in recommendations:
        if not advice.found:
            warnings.append(f"{advice.load}: nothing in the plan keeps to the limits; the nearest is shown.")
        elif not advice.proven:
            warnings.append(f"{advice.load}: the most simulations were used up; something cheaper may do.")
    return CapacityResult(
        moesim_version=__version__,
        question=plan.question,
        plan=plan.model_dump(mode="json", exclude_defaults=True),
        base_scenario=loaded_plan.base.scenario.model_dump(mode="json"),
        configurations=sum(1 for _ in configurations(plan)),
        simulated=sum(len(found.simulated) for _, found in searches),
        cut=sum(1 for row in candidates if row.cut),
        candidates=candidates,
        recommendations=recommendations,
        mix=mix_of(loaded_plan, searches),
        prices=sorted(_prices(loaded_plan, searches)),
        labels=labels,
        warnings=warnings,
    )


class _Advice:
    """The recommendation for one load; ``offset``: of its rows among all candidates."""

    def __init__(self, loaded_plan: LoadedPlan, search: Search, found: Found, offset: int):
        self._plan, self._base, self._search, self._found = loaded_plan, loaded_plan.base, search, found
        self._offset = offset
        self._ran = [(place, candidate) for place, candidate in found.simulated if found.rows[place].figures]

    def recommendation(self) -> Recommendation:
        rows = self._found.rows
        best, is_found = self._best()
        row, candidate = rows[best], dict(self._found.simulated)[best]
        result = self._found.results[best]
        error = error_bar(result.evidence_shares)
        return Recommendation(
            load=self._search.name,
            found=is_found,
            proven=is_found and self._found.proven,
            candidate=row,
            runner_up=self._runner_up(best) if is_found else None,
            safe=self._safe(),
            holds_load=self._holds(candidate) if is_found else None,
            binds=[*_binding(result), *self._near_limits(row)],
            first=self._upgrades(),
            pareto=[self._offset + place for place in self._pareto()],
            sensitivity=[*self._sensitivity(best, candidate, error), *self._prices(best)] if is_found else [],
            evidence_shares=result.evidence_shares,
            error_bar=error,
            measure_first=_measure_first(result),
        )

    def _met(self) -> list[int]:
        rows = self._found.rows
        return [place for place, _ in self._ran if (figures := rows[place].figures) is not None and figures.met]

    def _best(self) -> tuple[int, bool]:
        """The cheapest that keeps to the limits, the quickest of these; else the one that comes nearest."""
        rows = self._found.rows
        if met := self._met():
            return min(met, key=lambda place: (rows[place].usd_per_hour, _latency(rows[place]))), True
        return max((p for p, _ in self._ran), key=lambda place: (_good(rows[place]), -_latency(rows[place]))), False

    def _runner_up(self, best: int) -> CandidateRow | None:
        """The cheapest with other options."""
        rows = self._found.rows
        others = [place for place in self._met() if rows[place].options != rows[best].options]
        chosen = min(others, key=lambda place: (rows[place].usd_per_hour, _latency(rows[place])), default=None)
        return None if chosen is None else rows[chosen]

    def _safe(self) -> CandidateRow | None:
        """The cheapest that keeps to the limits even if steps take as long as its own error bar allows."""
        rows, results = self._found.rows, self._found.results
        tried = sorted(self._met(), key=lambda place: (rows[place].usd_per_hour, _latency(rows[place])))[:SAFE_TRIES]
        errors = [error_bar(results[place].evidence_shares) for place in tried]
        for place, figures in zip(tried, self._longer(tried, errors), strict=True):
            if figures is not None and figures.met:
                return rows[place]
        return None

    def _longer(self, places: Sequence[int], errors: Sequence[float]) -> list[Figures | None]:
        """Figures of candidates whose steps are longer by relative errors."""
        search, candidates = self._search, dict(self._found.simulated)
        if not search.serving:
            results = self._found.results
            rows = [search.row(candidates[p], results[p], 1 + e) for p, e in zip(places, errors, strict=True)]
        else:
            wanted = [
                (candidates[p], {"serving.time_scale": round(1 + e, 4)}) for p, e in zip(places, errors, strict=True)
            ]
            ran = search.simulate(wanted)
            rows = [search.row(candidate, result) for (candidate, _), result in zip(wanted, ran, strict=True)]
        return [row.figures for row in rows]

    def _holds(self, candidate: Candidate) -> float | None:
        """The largest tried multiple of the load up to which all smaller ones are carried."""
        search = self._search
        settings = dict(search.settings(candidate.configuration, candidate.replicas))
        tried = [(factor, loaded(self._base, settings, factor)) for factor in LOAD_FACTORS]
        wanted = [(factor, more) for factor, more in tried if more is not None]
        if not wanted:
            return None
        held = 1.0
        results = search.simulate([(candidate, more) for _, more in wanted])
        for (factor, _), result in zip(wanted, results, strict=True):
            figures = search.row(candidate, result).figures
            if figures is None or not figures.met:
                break
            held = factor
        return held

    def _sensitivity(self, best: int, candidate: Candidate, error: float) -> list[Sensitivity]:
        search = self._search
        settings = dict(search.settings(candidate.configuration, candidate.replicas))
        wanted = list(changes(self._base, settings, error))
        results = search.simulate([(candidate, more) for _, more in wanted])
        found = []
        for (name, _), result in zip(wanted, results, strict=True):
            row = search.row(candidate, result)
            if row.figures is not None:
                found.append(_changed(name, row, ""))
        if not search.serving:
            own = self._found.results[best]
            for sign, word in ((1, "longer"), (-1, "shorter")):
                name = f"all times {error:.0%} {word} (error bar)"
                found.append(_changed(name, search.row(candidate, own, 1 + sign * error), ""))
        return found

    def _prices(self, best: int) -> list[Sensitivity]:
        """Each price of the recommended one a third up: is another one cheaper then?"""
        rows, search = self._found.rows, self._search
        candidates, found = dict(self._found.simulated), []
        dearer = {
            place: search.usd_per_hour(candidates[place])
            * (PRICE_CHANGE if _shares_price(self._plan, candidates[place], candidates[best]) else 1.0)
            for place in self._met()
        }
        cheapest = min(dearer, key=lambda place: (dearer[place], _latency(rows[place])))
        name = "" if rows[cheapest].options == rows[best].options else _name(rows[cheapest])
        row = rows[best].model_copy(update={"usd_per_hour": dearer[best]})
        found.append(_changed("its prices 30 % up", row, name))
        return found

    def _near_limits(self, row: CandidateRow) -> Iterator[str]:
        """How much of each limit is used."""
        figures, slo = row.figures, self._search.load.slo
        if figures is None:
            return
        for name, value, limit in (
            ("TTFT p99", figures.ttft_p99_s, slo.ttft),
            ("TPOT p99", figures.tpot_p99_s, slo.tpot),
        ):
            if value is not None and limit is not None:
                yield f"{name} is {value / parse(limit, 'time'):.0%} of its limit"
        if figures.saturated:
            yield "queueing: requests come faster than they are served"

    def _upgrades(self) -> list[Upgrade]:
        """Of what is bought: each option alone against the first of every choice."""
        plan, rows = self._plan.plan, self._found.rows
        kept = {choice: next(iter(options)) for choice, options in plan.choices.items()}
        base = next((rows[place] for place, _ in self._ran if rows[place].options == kept), None)
        if self._search.serving or base is None:
            return []
        found = []
        for place, _ in self._ran:
            row = rows[place]
            changed = [choice for choice, option in row.options.items() if option != kept[choice]]
            if len(changed) == 1 and row.figures is not None:
                faster = _latency(base) / _latency(row)
                option = row.options[changed[0]]
                usd = row.usd - base.usd
                found.append(Upgrade(choice=changed[0], option=option, usd=usd, faster=faster, met=row.figures.met))
        return sorted(found, key=lambda upgrade: -(upgrade.faster - 1) / max(upgrade.usd, 1.0))

    def _pareto(self) -> list[int]:
        rows = self._found.rows
        return [
            place for place in self._met() if not any(_beats(rows[o], rows[place]) for o in self._met() if o != place)
        ]


def _changed(name: str, row: CandidateRow, cheaper: str) -> Sensitivity:
    figures = row.figures
    assert figures is not None
    return Sensitivity(
        change=name,
        met=figures.met,
        good_share=figures.good_share,
        ttft_p99_s=figures.ttft_p99_s,
        tpot_p99_s=figures.tpot_p99_s,
        latency_mean_s=figures.latency_mean_s,
        usd_per_hour=row.usd_per_hour,
        cheaper_instead=cheaper,
    )


def _beats(one: CandidateRow, other: CandidateRow) -> bool:
    """No worse in cost, latency and energy, and better in one."""
    mine, its = _axes(one), _axes(other)
    return all(a <= b for a, b in zip(mine, its, strict=True)) and mine != its


def _axes(row: CandidateRow) -> tuple[float, float, float]:
    energy = row.figures.joule_per_output_token if row.figures else None
    return row.usd_per_hour, _latency(row), energy or 0.0


def _latency(row: CandidateRow) -> float:
    return row.figures.latency_mean_s if row.figures else float("inf")


def _good(row: CandidateRow) -> float:
    return row.figures.good_share if row.figures else -1.0


def _name(row: CandidateRow) -> str:
    return " · ".join(row.options.values()) + f" × {row.replicas}"


def _shares_price(loaded_plan: LoadedPlan, one: Candidate, other: Candidate) -> bool:
    """Whether both pay for an option in common; those without a price of their own pay their machine's rent."""

    def paid(candidate: Candidate) -> set[tuple[str, str]]:
        options = loaded_plan.plan.choices
        priced = {
            (choice, name)
            for choice, name in candidate.configuration.options
            if options[choice][name].usd or options[choice][name].usd_per_gpu_hour
        }
        machine = {
            (choice, name)
            for choice, name in candidate.configuration.options
            if any(key.startswith("hardware") for key in options[choice][name].settings)
        }
        return priced or machine

    return paid(one) == paid(other) or bool(paid(one) & paid(other))


def _binding(result: SavedResult) -> Iterator[str]:
    """What limits a run: time by resource, memory, queueing; in words."""
    if isinstance(result, Result):
        yield f"bound by {result.bottleneck.bound_by}, {result.bottleneck.share:.0%} of the time"
        yield "where time goes: " + _shares(result.breakdown.total)
        gpu = {row.name: row.bytes for row in result.memory if row.memory == "gpu"}
        yield "GPU memory: " + ", ".join(f"{name} {format_bytes(size)}" for name, size in gpu.items())
    if not isinstance(result, ServingResult):
        return
    head, found = result.headline, result.bottleneck
    yield f"{found.bound_by} takes {found.share:.0%} of the replicas' time; they are busy {head.busy_share:.0%} of it"
    yield "a step is limited by: " + _shares(result.resources)
    held = ", ".join(f"{use.name} {format_bytes(use.bytes)}" for use in result.memory)
    yield f"a GPU's memory: {held}; KV cache fills to {head.kv_most_share:.0%}"
    if head.queue_s is not None and head.latency_s is not None:
        waited = f"{format_seconds(head.queue_s.mean)} of a mean latency of {format_seconds(head.latency_s.mean)}"
        yield f"queueing: {waited}"


def _shares(parts: Sequence[TimeShare]) -> str:
    return ", ".join(f"{part.name} {part.share:.0%}" for part in parts if part.share >= 0.01)


def _measure_first(result: SavedResult) -> list[PartShare]:
    """The parts whose constants are known least, by how much of the error bar they are."""
    if isinstance(result, ServingResult):
        rows = [PartShare(part=row.part, kind=row.kind, share=row.share) for row in result.evidence]
    elif isinstance(result, Result):
        rows = [PartShare(part=row.term, kind=row.kind, share=row.share) for row in result.evidence]
    else:
        rows = []
    weighed = sorted(rows, key=lambda row: -error_bar({row.kind: row.share}))
    return weighed[:MEASURED_FIRST]


def _labels(result: SavedResult | None) -> list[str]:
    trace = None if result is None else result.trace
    return list(trace["labels"]) if trace else []


def _prices(loaded_plan: LoadedPlan, searches: Sequence[tuple[Search, Found]]) -> set[str]:
    """Each price with its source."""
    told = set()
    for choice, options in loaded_plan.plan.choices.items():
        for name, option in options.items():
            if option.usd is not None:
                told.add(f"{choice} {name}: {option.usd} ({option.price or 'assumed'})")
            if option.usd_per_gpu_hour is not None:
                told.add(
                    f"{choice} {name}: {option.usd_per_gpu_hour:g} USD per GPU and hour ({option.price or 'assumed'})"
                )
    for search, found in searches:
        for _, candidate in found.simulated:
            rent, given = candidate.survey.usd_per_gpu_hour, candidate.configuration
            if search.serving and given.usd_per_gpu_hour is None and not given.usd and rent is not None:
                machine = [name for choice, name in given.options if _is_machine(loaded_plan, choice, name)]
                what = ", ".join(machine) or "the GPU"
                told.add(f"{what}: {rent:.2f} USD per GPU and hour: the middle of {candidate.survey.rent}")
    return told


def _is_machine(loaded_plan: LoadedPlan, choice: str, name: str) -> bool:
    return any(key.startswith("hardware") for key in loaded_plan.plan.choices[choice][name].settings)
