"""Cheapest first: candidates are simulated in order of cost until every cheaper one than the best is known to fail.

A candidate is a configuration with a number of replicas; the first number that its bound allows comes first, the next
one when it has failed. Costs rise with replicas, so when a candidate keeps to the limits, all that is left costs as
much or more: it is the cheapest. Candidates up to ``explore`` times its cost are simulated as well, for the trade-off.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moesim.errors import ScenarioError
from moesim.results.capacity import CandidateRow, Figures
from moesim.results.result import Result
from moesim.results.saved import SavedResult
from moesim.results.serving import ServingResult
from moesim.scenario.serving.schema import SloSpec
from moesim.studies.capacity.plan import (
    HOURS_PER_YEAR,
    Configuration,
    LoadedPlan,
    LoadSpec,
    configurations,
    slo_settings,
)
from moesim.studies.capacity.survey import Question, Survey, survey
from moesim.studies.execution import Executor, Lost
from moesim.studies.points import Task, results_of, run_all
from moesim.studies.store import Failure
from moesim.units import parse

#: (USD per hour, order, candidate).
Heap = list[tuple[float, int, "Candidate"]]
NO_PRICE = "give an option usd_per_gpu_hour, or usd to buy it"
#: Simulated at once: enough for a few processes, and few enough that little is simulated in vain.
WAVE = 8


@dataclass(frozen=True)
class Candidate:
    """A configuration with so many replicas."""

    configuration: Configuration
    survey: Survey
    replicas: int

    @property
    def gpus(self) -> int:
        """All of them."""
        return self.survey.gpus * self.replicas + self.survey.fixed_gpus


@dataclass
class Found:
    """What a search of one load leaves behind.

    Attributes:
        rows: every candidate that was simulated, and one row for each configuration that was cut.
        settings, results: of each simulated row, in the order of ``simulated``.
        proven: whether nothing cheaper than the best is left.
    """

    rows: list[CandidateRow] = field(default_factory=list)
    simulated: list[tuple[int, Candidate]] = field(default_factory=list)
    results: dict[int, SavedResult] = field(default_factory=dict)
    proven: bool = True


class Search:
    """The search of one load."""

    def __init__(
        self,
        loaded: LoadedPlan,
        name: str,
        store: Path,
        executor: Executor,
        progress: Callable[[str], None] = lambda _: None,
        prune: bool = True,
    ):
        self.plan, self.base, self.name = loaded.plan, loaded.path.parent / loaded.plan.scenario, name
        self.load: LoadSpec = loaded.plan.loads[name]
        self.serving = loaded.base.scenario.serving is not None
        self._store, self._executor, self._progress, self._prune = store, executor, progress, prune
        self._order = itertools.count()  # of candidates that cost the same

    def run(self) -> Found:
        """Search."""
        found, most, best = Found(), self.plan.most_simulations, float("inf")
        rows, heap = self._surveyed()
        found.rows.extend(rows)
        while heap and heap[0][0] <= best * self.plan.explore * (1 + 1e-12):
            if len(found.simulated) >= most:
                found.proven = heap[0][0] >= best
                break
            wave = self._wave(heap, best)
            for candidate, result in zip(wave, self.simulate([(c, {}) for c in wave]), strict=True):
                row = self.row(candidate, result)
                found.rows.append(row)
                found.simulated.append((len(found.rows) - 1, candidate))
                if not isinstance(result, Failure):
                    found.results[len(found.rows) - 1] = result
                if row.figures is not None and row.figures.met:
                    best = min(best, row.usd_per_hour)
                self._push(heap, candidate.configuration, candidate.survey, candidate.replicas + 1)
            self._progress(f"{self.name}: {len(found.simulated)} simulated, {len(heap)} left")
        return found

    def _surveyed(self) -> tuple[list[CandidateRow], Heap]:
        """Configurations that were cut, and the first candidate of each other one."""
        known = list(configurations(self.plan))
        questions = [
            Question(self.base.resolve(), self.settings(configuration, 1), self.load.slo.tpot, self.load.slo.share)
            for configuration in known
        ]
        surveys: list[Survey] = [Survey("", False)] * len(known)
        for index, outcome in self._executor.outcomes(survey, questions):
            surveys[index] = Survey(outcome.why, fits=False) if isinstance(outcome, Lost) else outcome
        rows: list[CandidateRow] = []
        heap: Heap = []
        for configuration, found in zip(known, surveys, strict=True):
            told = self._priced(configuration, found)
            first = Candidate(configuration, told, told.replicas if self._prune else 1)
            if told.cut and (self._prune or not told.fits):
                rows.append(self._row(replace(first, replicas=1), told.cut, None))
            elif not self._push(heap, configuration, told, first.replicas):
                why = f"needs {first.replicas} replicas at least, of {first.gpus} GPUs, which is more than can be had"
                rows.append(self._row(first, why, None))
        return rows, heap

    def _priced(self, configuration: Configuration, told: Survey) -> Survey:
        """What nobody knows the price of would be the cheapest: it is cut."""
        given = configuration.usd or configuration.usd_per_gpu_hour is not None
        if not self.serving or given or not told.fits or told.usd_per_gpu_hour is not None:
            return told
        return replace(told, cut=f"no rent is known: {NO_PRICE}", fits=False)

    def _wave(self, heap: Heap, best: float) -> list[Candidate]:
        """The cheapest candidates, at most :data:`WAVE`."""
        wave: list[Candidate] = []
        while heap and len(wave) < WAVE and heap[0][0] <= best * self.plan.explore * (1 + 1e-12):
            wave.append(heapq.heappop(heap)[2])
        return wave

    def _push(self, heap: Heap, configuration: Configuration, told: Survey, replicas: int) -> bool:
        """Whether so many replicas can be had; then they are tried."""
        candidate = Candidate(configuration, told, replicas)
        most = min(self.plan.most_gpus, configuration.most_gpus or self.plan.most_gpus)
        if replicas > (self.plan.most_replicas if self.serving else 1) or candidate.gpus > most:
            return False
        heapq.heappush(heap, (self.usd_per_hour(candidate), next(self._order), candidate))
        return True

    def settings(self, configuration: Configuration, replicas: int) -> tuple[tuple[str, Any], ...]:
        """On the base scenario."""
        settings = dict(configuration.settings) | dict(self.load.settings)
        if self.serving:
            settings |= slo_settings(self.load.slo) | {"serving.replicas": replicas}
            if configuration.usd_per_gpu_hour is not None:
                settings["serving.usd_per_gpu_hour"] = configuration.usd_per_gpu_hour
        return tuple(settings.items())

    def simulate(self, wanted: Sequence[tuple[Candidate, dict[str, Any]]]) -> list[SavedResult | Failure]:
        """Candidates with more settings, each simulated or taken from the store."""
        tasks = [
            Task(
                self.base.resolve(),
                tuple((dict(self.settings(candidate.configuration, candidate.replicas)) | more).items()),
                self._store.resolve(),
                candidate.configuration.name,
            )
            for candidate, more in wanted
        ]
        return list(results_of(tasks, run_all(tasks, self._executor)))

    def usd(self, candidate: Candidate) -> float:
        """To buy."""
        return candidate.configuration.usd * candidate.replicas

    def usd_per_hour(self, candidate: Candidate) -> float:
        """Rent; and of what is bought its price over its years, and its GPUs' power at their limit."""
        plan, configuration, told = self.plan, candidate.configuration, candidate.survey
        hours = plan.years * HOURS_PER_YEAR * plan.hours_per_day / 24
        bought = self.usd(candidate) / hours
        rent = configuration.usd_per_gpu_hour
        if rent is None and self.serving and not configuration.usd:
            rent = told.usd_per_gpu_hour or 0.0
        power = told.watts / 1000 * plan.usd_per_kwh if not rent else 0.0
        return bought + candidate.gpus * ((rent or 0.0) + power)

    def row(self, candidate: Candidate, result: SavedResult | Failure, scale: float = 1.0) -> CandidateRow:
        """A simulated candidate; of a desktop also with all times ``scale`` times as long."""
        if isinstance(result, Failure):
            return self._row(candidate, "; ".join(f"{fault[0]}: {fault[1]}" for fault in result.faults), None)
        return self._row(candidate, "", figures_of_run(result, self.load.slo, scale))

    def _row(self, candidate: Candidate, cut: str, figures: Figures | None) -> CandidateRow:
        return CandidateRow(
            load=self.name,
            options=dict(candidate.configuration.options),
            replicas=candidate.replicas,
            gpus=candidate.gpus,
            usd=self.usd(candidate),
            usd_per_hour=self.usd_per_hour(candidate),
            cut=cut,
            figures=figures,
        )


def figures_of_run(result: SavedResult, slo: SloSpec, scale: float = 1.0) -> Figures:
    """A result under a load's limits; a run of one user after the other takes ``scale`` times as long throughout."""
    if isinstance(result, ServingResult):
        return _of_serving(result)
    if isinstance(result, Result):
        return _of_desktop(result, slo, scale)
    raise ScenarioError.of("scenario", "is neither a serving nor an offloading scenario", "plans take one of these")


def _of_serving(result: ServingResult) -> Figures:
    head = result.headline
    return Figures(
        good_share=head.good_share or 0.0,
        met=bool(head.slo_met),
        saturated=head.saturated,
        ttft_p99_s=head.ttft_s.p99 if head.ttft_s else None,
        tpot_p99_s=head.tpot_s.p99 if head.tpot_s else None,
        latency_mean_s=head.latency_s.mean if head.latency_s else 0.0,
        output_tokens_per_s=head.output_tokens_per_s,
        joule_per_output_token=head.joule_per_output_token,
        kv_most_share=head.kv_most_share,
        busy_share=head.busy_share,
        bound_by=result.bottleneck.bound_by,
        bound_by_share=result.bottleneck.share,
        key=result.scenario_sha256,
    )


def _of_desktop(result: Result, slo: SloSpec, scale: float) -> Figures:
    """A single user's requests, one after the other."""
    limits = {name: parse(text, "time") for name, text in slo.model_dump(exclude={"share"}).items() if text is not None}
    good = 0
    for row in result.requests:
        values = {"ttft": row.ttft_s, "tpot": row.tpot_s, "latency": row.latency_s}
        good += all(value is None or value * scale <= limits[name] for name, value in values.items() if name in limits)
    share = good / max(len(result.requests), 1)
    head = result.headline
    return Figures(
        good_share=share,
        met=share >= slo.share,
        saturated=False,
        ttft_p99_s=head.ttft_s.p99 * scale if head.ttft_s else None,
        tpot_p99_s=head.tpot_s.p99 * scale if head.tpot_s else None,
        latency_mean_s=scale * sum(row.latency_s for row in result.requests) / max(len(result.requests), 1),
        output_tokens_per_s=head.output_tokens_per_s / scale,
        joule_per_output_token=head.joules_per_output_token,
        kv_most_share=None,
        busy_share=None,
        bound_by=result.bottleneck.bound_by,
        bound_by_share=result.bottleneck.share,
        key=result.scenario_sha256,
    )
