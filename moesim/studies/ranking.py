"""What the runs of a comparison say together: who is faster, by how much, how surely, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from moesim.results import Result
from moesim.results.comparison import Cell, Cliff, ComparisonResult, Paradox, RankRow, RunRow, Verdict
from moesim.scenario import Scenario
from moesim.studies.compare import ComparedRun, Comparison
from moesim.version import __version__

#: A policy that fetches at most so many times the fewest is near the optimum; above it the policy is what limits.
NEAR_OPTIMUM = 1.15
#: Below this hit rate of the optimum itself, no policy can help: the working set does not fit.
WORKING_SET_HIT_RATE = 0.5
#: A cliff: speed grows by more than this power of the cache's size, and by at least half.
CLIFF_EXPONENT, CLIFF_SPEEDUP = 1.5, 1.5
#: With fewer requests a bootstrap interval is far too narrow, so none is given.
FEWEST_REQUESTS = 8
RESAMPLES, CONFIDENCE = 2000, 0.95
_EXTRAPOLATED = re.compile(r"extrapolated: (?P<share>[\d.]+)%(?P<words> of the time [^(]*)\((?P<parts>.*)\)\.")


def rank(comparison: Comparison, base: Scenario, runs: Sequence[ComparedRun[Result]]) -> ComparisonResult:
    """Gather the runs of a comparison over ``base`` into its result."""
    rows = [_row(run) for run in runs]
    return ComparisonResult(
        moesim_version=__version__,
        question=comparison.question or base.question,
        comparison=comparison.model_dump(mode="json"),
        base_scenario=base.model_dump(mode="json"),
        runs=rows,
        ranking=[rank for _, cell in _cells(rows) for rank in _ranking(cell)],
        cliffs=list(_cliffs(rows)),
        paradoxes=[paradox for _, cell in _cells(rows) for paradox in _paradoxes(cell)],
        warnings=_warnings(runs),
    )


def _warnings(runs: Sequence[ComparedRun[Result]]) -> list[str]:
    """Each once; of those that differ in a share and in parts only (what is extrapolated) one for all runs."""
    told = list(dict.fromkeys(warning for run in runs for warning in run.result.warnings))
    found = [match for warning in told if (match := _EXTRAPOLATED.fullmatch(warning))]
    if len(found) < 2:
        return told
    shares = [float(match["share"]) for match in found]
    parts = dict.fromkeys(part for match in found for part in match["parts"].split("; "))
    first, rest = found[0], {match.string for match in found[1:]}
    merged = f"extrapolated: {min(shares):.1f}% to {max(shares):.1f}%, by run,{first['words']}({'; '.join(parts)})."
    return [merged if warning == first.string else warning for warning in told if warning not in rest]


def _row(run: ComparedRun[Result]) -> RunRow:
    point, result = run.point, run.result
    head, counters = result.headline, result.counters
    fewest = next((bound for bound in result.bounds if bound.unit == "fetches"), None)
    above = {link.name: link.demand_transfers + link.prefetch_transfers for link in result.links}
    transfers = above.get("pcie") or above.get("flash", 0)  # shared memory: what is read is on the GPU
    expert_bytes = counters.fetched_bytes / transfers if transfers else 0.0
    timed = [row for row in result.requests if row.tpot_s is not None]
    return RunRow(
        cell=Cell(trace=point.trace, machine=point.machine, gpu_experts=point.gpu_experts, seed=point.seed),
        policy=point.policy,
        needs_future=any("knows the future" in warning for warning in result.warnings),
        gpu_slots=result.residency.gpu_slots,
        decode_tokens_per_s=head.decode_tokens_per_s,
        output_tokens_per_s=head.output_tokens_per_s,
        ceiling_output_tokens_per_s=_ceiling(result),
        mean_ttft_s=None if head.ttft_s is None else head.ttft_s.mean,
        cpu_rate_per_lookup=counters.cpu_lookups / max(1, counters.lookups),
        hit_rate_per_lookup=head.decode_hit_rate_per_lookup,
        late_rate_per_lookup=head.decode_late_rate_per_lookup,
        fetched_bytes_per_decode_token=head.fetched_bytes_per_decode_token,
        fetches=int(fewest.ours) if fewest else None,
        fewest_fetches=int(fewest.value) if fewest else None,
        output_changed_share=result.output_changed.share,
        prefetch_wasted_bytes=round(counters.prefetch_wasted * expert_bytes),
        bound_by=result.bottleneck.bound_by,
        bound_by_share=result.bottleneck.share,
        limited_by=_verdict(result),
        requests=[row.request for row in timed],
        tpot_s=[row.tpot_s for row in timed if row.tpot_s is not None],
        evidence_shares=result.evidence_shares,
    )


def _ceiling(result: Result) -> float | None:
    """Output tokens per second with the least waiting, where the run has no warm-up (which that bound includes)."""
    least = next((bound for bound in result.bounds if bound.unit == "s of stall"), None)
    if least is None or result.scenario["workload"]["warmup_requests"]:
        return None
    return result.counters.output_tokens / (result.headline.duration_s - least.ours + least.value)


def _verdict(result: Result) -> Verdict:
    """Policy failure, working-set failure, or neither."""
    fewest = next((bound for bound in result.bounds if bound.unit == "fetches"), None)
    if fewest is None:
        return "not proven"
    if fewest.ours <= NEAR_OPTIMUM * fewest.value:
        hit_rate_of_optimum = 1 - fewest.value / max(1, result.counters.lookups)
        return "working set" if hit_rate_of_optimum < WORKING_SET_HIT_RATE else "near the optimum"
    return "policy" if fewest.status == "optimal" else "not proven"


def _cells(rows: Iterable[RunRow]) -> Iterator[tuple[Cell, list[RunRow]]]:
    """Runs that differ in their policy only, with all their seeds: the cell named is that of the first seed."""
    ordered = sorted(rows, key=lambda row: (row.cell.trace, row.cell.machine, row.gpu_slots))
    for _, group in groupby(ordered, key=lambda row: (row.cell.trace, row.cell.machine, row.cell.gpu_experts)):
        members = list(group)
        yield members[0].cell, members


def _ranking(cell: list[RunRow]) -> list[RankRow]:
    """Policies of a cell by mean TPOT, each against the fastest that does not know the future."""
    times = {policy: _tpot(cell, policy) for policy in dict.fromkeys(row.policy for row in cell)}
    times = {policy: seconds for policy, seconds in times.items() if len(seconds)}
    future = {row.policy for row in cell if row.needs_future}
    real = [policy for policy in times if policy not in future] or list(times)
    if not real:
        return []
    best = min(real, key=lambda policy: float(times[policy].mean()))
    rows = []
    for policy, seconds in sorted(times.items(), key=lambda item: float(item[1].mean())):
        interval = None if policy == best else _interval(seconds, times[best])
        rows.append(
            RankRow(
                cell=cell[0].cell,
                policy=policy,
                needs_future=policy in future,
                mean_tpot_s=float(seconds.mean()),
                slower_than_best=float(seconds.mean() / times[best].mean()),
                interval=interval,
                distinguishable=None if interval is None else not interval[0] <= 1 <= interval[1],
            )
        )
    return rows


def _tpot(cell: list[RunRow], policy: str) -> NDArray[np.float64]:
    """TPOT of every request under a policy, the mean over seeds, in one order for all policies. [requests]"""
    return np.asarray(np.mean([row.tpot_s for row in cell if row.policy == policy], axis=0))


def _interval(ours: NDArray[np.float64], best: NDArray[np.float64]) -> tuple[float, float] | None:
    """Of the ratio of mean TPOTs, resampling requests together (they are the same under both policies)."""
    if len(ours) != len(best) or len(ours) < FEWEST_REQUESTS:
        return None
    if np.array_equal(ours, best):
        return (1.0, 1.0)

    def ratio(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(a.mean(axis=axis) / b.mean(axis=axis))

    found = bootstrap(
        (ours, best),
        ratio,
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _cliffs(rows: Sequence[RunRow]) -> Iterator[Cliff]:
    ordered = sorted(rows, key=lambda row: (row.cell.trace, row.cell.machine, row.policy, row.cell.seed, row.gpu_slots))
    for key, group in groupby(ordered, key=lambda r: (r.cell.trace, r.cell.machine, r.policy, r.cell.seed)):
        for smaller, larger in pairwise(group):
            if (
                not smaller.decode_tokens_per_s
                or not larger.decode_tokens_per_s
                or larger.gpu_slots <= smaller.gpu_slots
            ):
                continue
            speedup = larger.decode_tokens_per_s / smaller.decode_tokens_per_s
            size_ratio = larger.gpu_slots / smaller.gpu_slots
            if key[3] == rows[0].cell.seed and speedup >= max(CLIFF_SPEEDUP, size_ratio**CLIFF_EXPONENT):
                yield Cliff(
                    trace=key[0],
                    machine=key[1],
                    policy=key[2],
                    smaller=smaller.cell.gpu_experts,
                    larger=larger.cell.gpu_experts,
                    size_ratio=size_ratio,
                    speedup=speedup,
                )


def _paradoxes(cell: list[RunRow]) -> Iterator[Paradox]:
    """For each real policy the fastest one that hits less often and yet runs faster, of the first seed."""
    seed = cell[0].cell.seed
    runs = [row for row in cell if row.cell.seed == seed and row.decode_tokens_per_s and not row.needs_future]
    for a in runs:
        faster = [b for b in runs if _hits_more_runs_slower(a, b)]
        if faster:
            b = max(faster, key=lambda row: row.decode_tokens_per_s or 0.0)
            yield Paradox(
                cell=a.cell,
                hits_more=a.policy,
                runs_faster=b.policy,
                hit_rates=(a.hit_rate_per_lookup or 0.0, b.hit_rate_per_lookup or 0.0),
                decode_tokens_per_s=(a.decode_tokens_per_s or 0.0, b.decode_tokens_per_s or 0.0),
                why=_why(a, b),
            )


def _hits_more_runs_slower(a: RunRow, b: RunRow) -> bool:
    more_hits = (a.hit_rate_per_lookup or 0.0) > (b.hit_rate_per_lookup or 0.0) + 0.001
    return more_hits and (a.decode_tokens_per_s or 0.0) < 0.99 * (b.decode_tokens_per_s or 0.0)


def _why(hits_more: RunRow, runs_faster: RunRow) -> str:
    """Of the differences between the two that explain it, the first."""
    if (other := runs_faster.output_changed_share - hits_more.output_changed_share) > 0.01:
        return f"the other one changes {other:.1%} more of the output, and need not bring that"
    if (other := runs_faster.cpu_rate_per_lookup - hits_more.cpu_rate_per_lookup) > 0.05:
        return f"the other one has the CPU compute {other:.1%} more of its lookups, and need not bring those"
    late = (hits_more.late_rate_per_lookup or 0.0) - (runs_faster.late_rate_per_lookup or 0.0)
    if late > 0.01:
        return f"{late:.1%} more of its lookups were hits that came late"
    if hits_more.prefetch_wasted_bytes > 1.1 * runs_faster.prefetch_wasted_bytes:
        wasted = (hits_more.prefetch_wasted_bytes - runs_faster.prefetch_wasted_bytes) / 1e9
        return f"its wrong prefetches moved {wasted:.2f} GB more over the link"
    fetched = (hits_more.fetched_bytes_per_decode_token or 0.0) - (runs_faster.fetched_bytes_per_decode_token or 0.0)
    if fetched > 0:
        return f"it fetched {fetched / 1e6:.1f} MB more per decode token"
    return "what it missed cost more: other tiers, or moments at which nothing else could run"
