"""What the runs of a comparison on clusters say together: each system beside the first of its trace and machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moesim.results.cluster_comparison import ClusterComparisonResult, SystemRow
from moesim.results.comparison import ComparisonResult
from moesim.results.parallel import ExchangeRow, ParallelResult
from moesim.results.result import Result
from moesim.scenario import Scenario
from moesim.studies.compare import ComparedRun, Comparison
from moesim.studies.ranking import rank
from moesim.units import format_seconds
from moesim.version import __version__

#: Systems whose rates differ by less are told as equal.
SAME = 0.01


def rank_clusters(
    comparison: Comparison, base: Scenario, runs: Sequence[ComparedRun[ParallelResult]]
) -> ClusterComparisonResult:
    """Gather the runs of a comparison over ``base`` into its result; all of them ran on clusters."""
    rows = list(_rows(runs))
    return ClusterComparisonResult(
        moesim_version=__version__,
        question=comparison.question or base.question,
        comparison=comparison.model_dump(mode="json"),
        base_scenario=base.model_dump(mode="json"),
        rows=rows,
        answer=[_answer(place, found) for place, found in places(rows).items()],
        warnings=_warnings(runs),
    )


def _warnings(runs: Sequence[ComparedRun[ParallelResult]]) -> list[str]:
    """Each subject once: how many runs it concerns, and its longest text. Rows tell pipelining degrees themselves."""
    by_subject: dict[str, list[str]] = {}
    for run in runs:
        for warning in run.result.warnings:
            by_subject.setdefault(warning.partition(":")[0], []).append(warning)
    told = []
    for subject, texts in by_subject.items():
        if subject == "best pipelining degree":
            continue
        more = len(set(texts)) > 1 or len(texts) < len(runs)
        told.append(max(texts, key=len) + (f" ({len(texts)} of {len(runs)} runs)" if more else ""))
    return told


def places(rows: Sequence[SystemRow]) -> dict[tuple[str, str, int], list[SystemRow]]:
    """(trace, machine, seed) -> its systems, in order."""
    found: dict[tuple[str, str, int], list[SystemRow]] = {}
    for row in rows:
        found.setdefault((row.trace, row.machine, row.seed), []).append(row)
    return found


def conclude(
    comparison: Comparison, base: Scenario, runs: list[ComparedRun[Result]] | list[ComparedRun[ParallelResult]]
) -> ComparisonResult | ClusterComparisonResult:
    """The result of a comparison, of policies on one machine or of systems on clusters."""
    on_clusters = [run for run in runs if isinstance(run.result, ParallelResult)]
    if on_clusters:
        return rank_clusters(comparison, base, on_clusters)
    return rank(comparison, base, [run for run in runs if isinstance(run.result, Result)])


def _rows(runs: Sequence[ComparedRun[ParallelResult]]) -> Iterator[SystemRow]:
    first: dict[tuple[str, str, int], float] = {}
    for run in runs:
        point, head = run.point, run.result.headline
        base = first.setdefault((point.trace, point.machine, point.seed), head.tokens_per_s)
        yield _row(run, head.tokens_per_s / base)


def _row(run: ComparedRun[ParallelResult], speedup: float) -> SystemRow:
    result, point = run.result, run.point
    head = result.headline
    exchanges = {row.name: row for row in result.exchanges}
    dispatch, combine = exchanges.get("dispatch"), exchanges.get("combine")
    replicas = next((row for row in result.memory.rows if row.name == "replicas"), None)
    return SystemRow(
        system=point.policy,
        trace=point.trace,
        machine=point.machine,
        seed=point.seed,
        placement=str(result.policies["placement"]["name"]),
        chunks=int(result.scenario["parallel"]["overlap"]["pipeline"]),
        gpus=result.degrees["gpus"],
        step_s=head.step_s.mean,
        step_p99_s=head.step_s.p99,
        tokens_per_s=head.tokens_per_s,
        tokens_per_s_per_gpu=head.tokens_per_s_per_gpu,
        speedup=speedup,
        imbalance=head.imbalance,
        reached_gpus=head.reached_gpus,
        **_spread("dispatch", dispatch),
        **_spread("combine", combine),
        exposed_share=head.exposed_share,
        waiting_share=head.waiting_share,
        dropped_share=head.dropped_share,
        replica_bytes_per_gpu=replicas.fullest_gpu_bytes if replicas else 0.0,
        needed_bytes_per_gpu=result.memory.needed_bytes,
        fits=result.memory.fits,
        bound_by=result.bottleneck.bound_by,
        bound_by_share=result.bottleneck.share,
        breakdown=result.breakdown,
        evidence_shares=result.evidence_shares,
    )


def _spread(name: str, row: ExchangeRow | None) -> dict[str, float | None]:
    return {
        f"{name}_s": None if row is None else row.per_layer_s.p50,
        f"{name}_p99_s": None if row is None else row.per_layer_s.p99,
    }


def _answer(place: tuple[str, str, int], rows: Sequence[SystemRow]) -> str:
    """Who is fastest, by how much over the first, and what bounds it."""
    where = ", ".join(part for part in place[:2] if part)
    best, base = max(rows, key=lambda row: row.tokens_per_s), rows[0]
    lead = f"{where}: " if where else ""
    bound = f"bound by {best.bound_by} ({best.bound_by_share:.0%} of the time)"
    if best is base or best.speedup < 1 + SAME:
        told = f"nothing is faster than {base.system}, {format_seconds(base.step_s)} a step"
        return f"{lead}{told}; {bound}."
    told = f"{best.system} is fastest: {format_seconds(best.step_s)} a step, {best.speedup:.2f}x {base.system}"
    spills = "" if best.fits else ", though its GPUs run out of memory"
    return f"{lead}{told}{spills}; {bound}."
