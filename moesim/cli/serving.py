"""``moesim run`` and ``check`` of scenarios that serve requests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moesim.cli.console import out, output_folder, print_table, progress
from moesim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from moesim.results.result import Distribution
    from moesim.results.serving import ServingResult
    from moesim.scenario import ScenarioFile

FILE = "serving.json"


def run_serving_scenario(file: ScenarioFile, folder: Path, report: bool, study: bool, as_json: bool) -> None:
    """Serve the scenario's requests, write what comes out, and print it."""
    from moesim.results.result import write_text
    from moesim.scenario.serving.build import build_serving
    from moesim.scenario.serving.summary import run_serving
    from moesim.studies.serving_what_ifs import with_serving_what_ifs

    with output_folder(folder):
        with progress("serving") as bar:

            def tell(name: str) -> None:
                bar.update(bar.task_ids[0], description=f"what if: {name}")

            result = with_serving_what_ifs(file, tell) if study else run_serving(build_serving(file))
        texts = {FILE: result.to_json()}
        if report:
            from moesim.report.kinds.serving import render_serving

            texts["report.html"] = render_serving(result)
        for name, text in texts.items():
            write_text(folder / name, text)
    if as_json:
        sys.stdout.write(texts[FILE])
        return
    print_serving(result, Path(file.document.name).stem)
    out().print("\nwrote " + ", ".join(str(folder / name) for name in texts), markup=False)


def check_serving_scenario(file: ScenarioFile, name: str) -> None:
    """Build it, and say what it is."""
    from moesim.scenario.serving.build import build_serving

    built = build_serving(file)
    limits = built.setup.limits
    out().print(
        f"{name}: ok: {built.model.name} on {built.replicas} x {built.parallel.gpus} {built.gpu.title}, KV cache of "
        f"{limits.blocks * limits.block_tokens:,} tokens each",
        markup=False,
    )


def print_serving(result: ServingResult, name: str) -> None:
    """The headline, what takes the time, what would help, and what to know about the numbers."""
    console, head, hardware = out(), result.headline, result.hardware
    routing = ""
    if result.trace is not None:
        labels = f" ({', '.join(result.trace['labels'])})" if result.trace["labels"] else ""
        routing = f", routing {result.trace['name']}{labels}"
    gpus = f"{hardware['replicas']} x {hardware['gpus_per_replica']} {hardware['gpu']}"
    console.print(f"{name}: {result.model['name']} on {gpus}{routing}", style="bold", markup=False)
    if result.question:
        console.print(result.question, markup=False)
    console.print()
    for label, value in _headline(result):
        console.print(f"  {label:<18} {value}", markup=False)
    console.print(f"\nWhere the replicas' time went ({format_seconds(head.duration_s)} simulated)", style="bold")
    for part in result.breakdown[:10]:
        console.print(f"  {part.name:<22} {part.share:6.1%}  {'█' * round(part.share * 40)}", markup=False)
    by_resource = ", ".join(f"{part.name} {part.share:.0%}" for part in result.resources if part.share >= 0.005)
    console.print(f"  of the steps: {by_resource}", markup=False)
    found = result.bottleneck
    console.print(f"\nBound by {found.bound_by}: {found.share:.0%} of the time.", style="bold", markup=False)
    if result.what_if:
        console.print("What would help most (each simulated again):")
        rows = [
            [
                what.change,
                f"{what.faster:.2f}x",
                f"{what.output_tokens_per_s:,.0f}",
                format_seconds(what.ttft_p99_s),
                format_seconds(what.tpot_p99_s),
                "–" if what.good_share is None else f"{what.good_share:.1%}",
                what.meaning,
            ]
            for what in result.what_if
        ]
        print_table(["change", "faster", "tokens/s", "TTFT p99", "TPOT p99", "good", ""], rows)
    shares = sorted(result.evidence_shares.items(), key=lambda item: -item[1])
    rests = ", ".join(f"{share:.0%} {kind}" for kind, share in shares)
    console.print(f"\nStep times rest on constants that are: {rests}", markup=False)
    if not result.offloads:
        error = result.step_error
        told = (
            f"tables of step times are off the cost forms by {error.mean:.1%} in the mean, {error.largest:.1%} at most"
        )
        console.print(told, style="dim", markup=False)
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _headline(result: ServingResult) -> list[tuple[str, str]]:
    head, counters = result.headline, result.counters
    rows = [
        ("throughput", f"{head.output_tokens_per_s:,.1f} output tokens/s, {head.requests_per_s:.3g} requests/s"),
        ("TTFT", _spread(head.ttft_s)),
        ("TPOT", _spread(head.tpot_s)),
        ("gap between tokens", _spread(head.itl_s)),
        ("latency", _spread(head.latency_s)),
        ("queueing", _spread(head.queue_s)),
    ]
    if head.good_share is not None:
        verdict = "met" if head.slo_met else "NOT met"
        rows.append(("within the SLO", f"{head.good_share:.2%} of requests, {head.goodput_per_s:.3g} /s: {verdict}"))
    if head.saturated:
        rows.append(("SATURATED", "requests come faster than they are served; waits grow for as long as they come"))
    rows.append(("in a step", f"{head.mean_running:.1f} requests running on average, {head.mean_waiting:.1f} waiting"))
    kv = f"{head.kv_mean_share:.1%} of {result.kv_tokens:,} tokens per replica on average"
    kv += f", {head.kv_most_share:.1%} at most"
    rows.append(("KV cache", kv))
    rows.append(("busy", f"{head.busy_share:.1%} of the time, {counters.preemptions} preemptions"))
    if head.usd_per_million_output_tokens is not None:
        rows.append(
            (
                "cost",
                f"{head.usd_per_million_output_tokens:.3g} USD per million output tokens (rent of {head.gpus} GPUs)",
            )
        )
    if head.joule_per_output_token is not None:
        most = "" if result.offloads else "at most "
        draws = "the whole machine while it works" if result.offloads else "GPUs at their power limit"
        rows.append(("energy", f"{most}{head.joule_per_output_token:.3g} J per output token ({draws})"))
    rows.append(("a GPU holds", ", ".join(f"{use.name} {format_bytes(use.bytes)}" for use in result.memory)))
    return rows


def _spread(spread: Distribution | None) -> str:
    if spread is None:
        return "–"
    return f"mean {format_seconds(spread.mean)}, p50 {format_seconds(spread.p50)}, p99 {format_seconds(spread.p99)}"
