"""``moesim run`` for scenarios of many GPUs: simulate, study, render, print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from moesim.cli.console import out, progress
from moesim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from moesim.results.parallel import ParallelResult
    from moesim.scenario import ScenarioFile


def run_on_cluster(file: ScenarioFile, *, study: bool, report: bool) -> tuple[ParallelResult, dict[str, str]]:
    """The result of a parallel scenario, and the text of every file to write."""
    from moesim.scenario.parallel.run import run_parallel
    from moesim.scenario.parallel.summary import summarise_parallel
    from moesim.studies.replication import with_studies

    with progress("simulating") as bar:
        run = run_parallel(file)
        tell = lambda name: bar.update(bar.task_ids[0], description=name)  # noqa: E731
        result = with_studies(run, tell) if study and run.built.parallel.study else summarise_parallel(run)
    texts = {"parallel.json": result.to_json()}
    if report:
        from moesim.engine.parallel_timeline import chrome_trace_parallel
        from moesim.report.kinds.parallel import render_parallel
        from moesim.scenario.parallel.timeline import timeline_of

        timeline = chrome_trace_parallel(timeline_of(run))
        texts["report.html"] = render_parallel(result)
        texts["timeline.json"] = json.dumps(timeline, allow_nan=False, separators=(",", ":"))
    return result, texts


def print_parallel(result: ParallelResult, name: str) -> None:
    """The headline, where the time went, what would help, and what to know about the numbers."""
    console, cluster, head = out(), result.hardware, result.headline
    labels = f" ({', '.join(result.trace['labels'])})" if result.trace["labels"] else ""
    where = f"{cluster['gpus']} GPUs of {cluster['name']}"
    console.print(
        f"{name}: {result.model['name']} on {where}, routing {result.trace['name']}{labels}", style="bold", markup=False
    )
    if result.question:
        console.print(result.question, markup=False)
    console.print()
    for label, value in _headline(result):
        console.print(f"  {label:<20} {value}", markup=False)
    steps = f"{head.step_s.n} steps of {format_seconds(head.step_s.mean)}, mean over GPUs"
    console.print(f"\nWhere the time went ({steps})", style="bold", markup=False)
    for part in sorted(result.breakdown, key=lambda part: -part.seconds):
        if part.share >= 0.001:
            bar = "█" * round(part.share * 40)
            console.print(f"  {part.name:<36} {part.share:6.1%}  {bar}", markup=False)
    for row in result.exchanges:
        times = f"p50 {format_seconds(row.per_layer_s.p50)}, p99 {format_seconds(row.per_layer_s.p99)} per layer"
        hidden = f"{row.hidden_s / row.busy_s:.0%} hidden" if row.busy_s else ""
        console.print(f"  {row.name:<36} {times}; {hidden}", style="dim", markup=False)
    for link in result.links:
        told = f"{link.mean_busy_share:6.1%} busy in the mean, {link.max_busy_share:.1%} at most; "
        moved = format_bytes(link.total_bytes)
        console.print(f"  {link.level + ' ' + link.network:<36} {told}{moved}", style="dim", markup=False)
    _print_limits(result)
    shares = sorted(result.evidence_shares.items(), key=lambda item: -item[1])
    rests = ", ".join(f"{share:.0%} {kind}" for kind, share in shares)
    console.print(f"\nSimulated time rests on constants that are: {rests}", markup=False)
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _headline(result: ParallelResult) -> list[tuple[str, str]]:
    head, degrees = result.headline, result.degrees
    spread = f"p50 {format_seconds(head.step_s.p50)}, p99 {format_seconds(head.step_s.p99)}"
    per_gpu = f"{head.tokens_per_s:,.0f} tokens/s, {head.tokens_per_s_per_gpu:,.0f} per GPU"
    spelt = ", ".join(f"{name} {value}" for name, value in degrees.items() if name != "gpus" and value > 1)
    rows = [
        ("spread over", f"{degrees['gpus']} GPUs: {spelt or 'no parallelism'}"),
        ("step", spread),
        ("throughput", per_gpu),
        ("imbalance", f"{head.imbalance:.3f} (fullest rank over mean, per layer)"),
        ("exposed exchange", f"{head.exposed_share:.1%} of the time; waiting for slower GPUs {head.waiting_share:.1%}"),
        ("memory", result.memory.verdict),
    ]
    if (found := result.offload) is not None:
        hits = "–" if found.hit_rate_per_lookup is None else f"{found.hit_rate_per_lookup:.1%}"
        told = f"{hits} hits per lookup, {format_bytes(found.fetched_bytes)} fetched; {found.slots_per_gpu} slots a GPU"
        rows.append((f"experts ({found.caching})", told))
    if result.counters.dropped:
        rows.append(("dropped", f"{head.dropped_share:.2%} of (token, expert) pairs"))
    if result.counters.rebalances:
        moved = format_bytes(result.counters.moved_bytes)
        rows.append(("rebalanced", f"{result.counters.rebalances} times, {moved} of weights moved"))
    return rows


def _print_limits(result: ParallelResult) -> None:
    console, found = out(), result.bottleneck
    console.print(f"\nBound by {found.bound_by}: {found.share:.0%} of the time.", style="bold", markup=False)
    if found.what_if:
        console.print("What would help most (each simulated again):")
        for change in found.what_if:
            console.print(f"  {change.change:<36} {change.speedup:.2f}x  {change.meaning}", markup=False)
    for bound in result.bounds:
        value = f"{bound.value:,.3g} {bound.unit}, and this run {bound.ours:,.3g}"
        console.print(f"  bound: {bound.name}: {value} ({bound.status})", markup=False)
    console.print("  the best placements of these experts: `moesim optimum SCENARIO`", markup=False)
    if (study := result.replication) is not None:
        console.print(f"\n{study.answer}", style="bold", markup=False)
        for row in study.rows:
            told = f"step {format_seconds(row.step_s)}  {row.speedup:.2f}x  imbalance {row.imbalance:.3f}"
            memory = f"replicas {format_bytes(row.replica_bytes_per_gpu)} per GPU" + (
                "" if row.fits else ", out of memory"
            )
            console.print(f"  {row.policy:<20} +{row.redundant_experts:<5} {told}  {memory}", markup=False)
    if (check := result.flow_check) is not None:
        console.print(
            f"Flow by flow (max-min fair) the busiest dispatch's bytes take {check.ratio:.2f}x the fullest link alone.",
            style="dim",
            markup=False,
        )
