"""``moesim plan`` and ``moesim fits``: what to buy or rent, and whether a model runs on a machine at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moesim.cli.console import JsonOption, err, out, output_folder, print_json, print_table, progress
from moesim.results.capacity import choices, named, safety
from moesim.units import format_seconds

if TYPE_CHECKING:
    from moesim.results.capacity import CandidateRow, CapacityResult, Recommendation

DEFAULT_OUT = Path("moesim-out")


def plan(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan (YAML).")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Default: moesim-out/PLAN.")] = None,
    executor: Annotated[
        Literal["processes", "ray"], typer.Option(help="Processes of this machine, or Ray (extra `ray`).")
    ] = "processes",
    processes: Annotated[int | None, typer.Option(min=1, max=4096, help="Default: one for each core.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Say what to buy or rent for a load within its limits, how near the limits that is, and how sure.

    Simulated candidates are kept below DIR/runs, so that a plan that was stopped goes on where it was.
    """
    from moesim.results.result import write_text
    from moesim.studies.capacity.answer import answer
    from moesim.studies.capacity.plan import load_plan
    from moesim.studies.execution import executor_of

    loaded = load_plan(plan_file)
    with output_folder(out_dir or DEFAULT_OUT / plan_file.stem) as folder:
        with progress("planning") as bar:

            def tell(what: str) -> None:
                bar.update(bar.task_ids[0], description=what)

            result = answer(loaded, folder / "runs", executor_of(executor, processes), tell)
        outputs = {"capacity.json": result.to_json(), "capacity.csv": result.to_csv()}
        if report:
            from moesim.report.kinds.capacity import render_capacity

            outputs["report.html"] = render_capacity(result)
        for name, text in outputs.items():
            write_text(folder / name, text)
    err().print(f"{result.simulated} simulated, {result.cut} cut", style="dim")
    if as_json:
        sys.stdout.write(result.to_json())
        return
    print_plan(result)
    out().print("\nwrote " + ", ".join(str(folder / name) for name in outputs), markup=False)


def fits(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A language-model card.")],
    hardware: Annotated[str, typer.Option("--hardware", metavar="NODE", help="A ready machine.")],
    precision: Annotated[str | None, typer.Option(help="Of all weights; default: as released.")] = None,
    context: Annotated[int, typer.Option(min=1, max=2**20, help="Positions of the request that decodes.")] = 4096,
    as_json: JsonOption = False,
) -> None:
    """Say whether a model runs on a machine, with what placed where, and about how fast one request decodes."""
    from dataclasses import asdict

    from moesim.hardware import build_node
    from moesim.models import Precisions, get_precision, load_model
    from moesim.studies.capacity.fits import fits as answer

    spec, node = load_model(model), build_node(hardware)
    names = (precision or spec.expert_precision, precision or spec.dense_precision)
    found = answer(spec, Precisions(get_precision(names[0]), get_precision(names[1])), node, context)
    if as_json:
        print_json({"model": model, "hardware": hardware, "context": context, **asdict(found)})
        return
    verdicts = {
        "resident": "fits into GPU memory",
        "offloaded": "runs with experts offloaded",
        "no": "does not run",
    }
    stored = names[0] if names[0] == names[1] else f"experts {names[0]}, the rest {names[1]}"
    out().print(f"{model} ({stored}) on {hardware}: {verdicts[found.verdict]}", style="bold", markup=False)
    if found.why:
        out().print(f"  {found.why}", markup=False)
    if found.placements:
        rows = [
            [
                way.name,
                way.gpus,
                f"{way.decode_tokens_per_s:.1f}",
                f"{way.most:.1f}",
                f"{way.kv_tokens:,}",
                "; ".join(f"{where}: {what}" for where, what in way.where.items()),
            ]
            for way in found.placements
        ]
        print_table(["how", "GPUs", "tokens/s", "at most", "context", "placed"], rows)
    for note in dict.fromkeys(way.note for way in found.placements if way.note):
        out().print(f"! an estimate, nothing is simulated: {note}", style="yellow", markup=False)


def print_plan(result: CapacityResult) -> None:
    """The recommendation of each load, what it rests on, and what would change it."""
    console = out()
    if result.question:
        console.print(result.question, style="bold", markup=False)
    told = f"{result.configurations} configurations, {result.simulated} candidates simulated, {result.cut} cut"
    console.print(told, style="dim", markup=False)
    for advice in result.recommendations:
        _print_advice(advice, result)
    if result.mix is not None and len(result.mix.rows) > 1:
        _print_mix(result)
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)
    for label in result.labels:
        console.print(f"! routing: {label}", style="yellow", markup=False)


def _print_advice(advice: Recommendation, result: CapacityResult) -> None:
    console = out()
    head = "take" if advice.found else "nothing keeps to the limits; nearest"
    proof = " (nothing cheaper in the plan does)" if advice.proven else ""
    console.print(f"\n{advice.load}: {head} {named(advice.candidate, result)}{proof}", style="bold", markup=False)
    print_table(
        ["", "what", "GPUs", "buy USD", "USD/h", "good", "TTFT p99", "TPOT p99", "latency", "tokens/s", "bound by"],
        [[what, *_cells(row, result)] for what, row in choices(advice, result, most=6)],
    )
    for told in advice.binds:
        console.print(f"  binds: {told}", markup=False)
    if advice.first:
        table = [
            [u.choice, u.option, f"{u.usd:,.0f}", f"{u.faster:.2f}x", _per_dollar(u.usd, u.faster)]
            for u in advice.first
        ]
        print_table(["upgrade alone", "to", "USD", "faster", "gain per 100 USD"], table)
    if advice.holds_load is not None:
        console.print(f"  margin: carries {advice.holds_load:g} times the load", markup=False)
    if told := safety(advice, result):
        console.print(f"  {told}", markup=False)
    if advice.sensitivity:
        table = [
            [
                changed.change,
                "met" if changed.met else "NOT met",
                f"{changed.good_share:.1%}",
                format_seconds(changed.ttft_p99_s),
                format_seconds(changed.tpot_p99_s),
                f"{changed.usd_per_hour:.3g}",
                changed.cheaper_instead,
            ]
            for changed in advice.sensitivity
        ]
        print_table(["if", "limits", "good", "TTFT p99", "TPOT p99", "USD/h", "then cheaper"], table)
    shares = ", ".join(f"{share:.0%} {kind}" for kind, share in advice.evidence_shares.items())
    console.print(f"  step times rest on: {shares}: an error of about {advice.error_bar:.0%}", markup=False)
    first = "; ".join(f"{row.part} ({row.kind}, {row.share:.0%} of the time)" for row in advice.measure_first)
    console.print(f"  measure before buying: {first}", markup=False)


def _print_mix(result: CapacityResult) -> None:
    mix, console = result.mix, out()
    assert mix is not None
    alone = "" if mix.alone_usd_per_hour is None else f", and {mix.alone_usd_per_hour:.3g} of one kind for each load"
    verdict = "simulated: within the limits" if mix.met else "simulated: NOT within the limits"
    console.print(f"\nMixed: {mix.usd_per_hour:.3g} USD/h{alone} ({mix.status}; {verdict})", style="bold", markup=False)
    rows = [
        [
            row.load,
            " · ".join(row.options.values()),
            row.replicas,
            f"{row.share:.0%}",
            f"{row.capacity_per_replica:.2f}",
        ]
        for row in mix.rows
    ]
    print_table(["load", "what", "replicas", "share", "capacity of one"], rows)


def _cells(row: CandidateRow, result: CapacityResult) -> list[str]:
    figures = row.figures
    if figures is None:
        return [named(row, result), str(row.gpus), f"{row.usd:,.0f}", f"{row.usd_per_hour:.3g}", *["–"] * 6]
    return [
        named(row, result),
        str(row.gpus),
        f"{row.usd:,.0f}",
        f"{row.usd_per_hour:.3g}",
        f"{figures.good_share:.1%}",
        format_seconds(figures.ttft_p99_s),
        format_seconds(figures.tpot_p99_s),
        format_seconds(figures.latency_mean_s),
        f"{figures.output_tokens_per_s:,.1f}",
        figures.bound_by,
    ]


def _per_dollar(usd: float, faster: float) -> str:
    return "free" if not usd else f"{(faster - 1) / usd * 100:+.1%}"
