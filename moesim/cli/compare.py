"""``moesim compare``: policies side by side."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.cluster_comparison import print_systems, systems_csv
from moesim.cli.console import AllowCodeOption, JsonOption, many_runs, out, output_folder, print_table
from moesim.units import format_seconds

if TYPE_CHECKING:
    from moesim.results.cluster_comparison import ClusterComparisonResult
    from moesim.results.comparison import ComparisonResult

DEFAULT_OUT = Path("moesim-out")


def compare(
    comparison: Annotated[Path, typer.Argument(metavar="COMPARISON", help="A comparison file (YAML).")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Default: moesim-out/COMPARISON.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, max=256, help="Default: one for each core.")] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")] = True,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run policies x cache sizes x traces x machines, and say which is faster, how surely, and why.

    Where the scenario has `parallel`, the systems of the comparison run on its cluster.

    Finished runs are kept below DIR/runs, so that a comparison that was stopped goes on where it was.
    """
    from moesim.results.comparison import ComparisonResult
    from moesim.results.result import write_text
    from moesim.scenario import load_scenario
    from moesim.studies.cluster_ranking import conclude
    from moesim.studies.compare import compare as run_all
    from moesim.studies.compare import load_comparison, points_of
    from moesim.studies.execution import Processes

    wanted, base = load_comparison(comparison)
    points = points_of(wanted)
    with output_folder(out_dir or DEFAULT_OUT / comparison.stem) as folder:
        with many_runs("comparing", len(points)) as tell:
            runs = run_all(
                base, points, folder / "runs", executor=Processes(processes), progress=tell, allow_code=allow_code
            )
        result = conclude(wanted, load_scenario(base).scenario, runs)
        outputs = _outputs(result, report)
        for name, text in outputs.items():
            write_text(folder / name, text)
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        print_comparison(result) if isinstance(result, ComparisonResult) else print_systems(result)
        out().print("\nwrote " + ", ".join(str(folder / name) for name in outputs), markup=False)


def _outputs(result: ComparisonResult | ClusterComparisonResult, report: bool) -> dict[str, str]:
    """The text of every file, by name."""
    from moesim.report import render_comparison
    from moesim.report.kinds.cluster_comparison import render_systems
    from moesim.results.comparison import ComparisonResult

    if isinstance(result, ComparisonResult):
        outputs = {"comparison.json": result.to_json(), "comparison.csv": to_csv(result)}
        return outputs | ({"report.html": render_comparison(result)} if report else {})
    outputs = {"clusters.json": result.to_json(), "clusters.csv": systems_csv(result)}
    return outputs | ({"report.html": render_systems(result)} if report else {})


def print_comparison(result: ComparisonResult) -> None:
    """The ranking of each cell, then what is odd."""
    console = out()
    if result.question:
        console.print(result.question, style="bold", markup=False)
    limited = {(run.cell, run.policy): run.limited_by for run in result.runs}
    ttft = {(run.cell, run.policy): run.mean_ttft_s for run in result.runs}
    changed = {(run.cell, run.policy): run.output_changed_share for run in result.runs}
    rows = []
    for row in result.ranking:
        interval = "" if row.interval is None else f"{row.interval[0]:.3f} - {row.interval[1]:.3f}"
        verdict = {None: "", True: "", False: "not distinguishable"}[row.distinguishable]
        where = " ".join(part for part in (row.cell.trace, row.cell.machine, row.cell.gpu_experts) if part)
        name = row.policy + (" (knows the future)" if row.needs_future else "")
        if share := changed[(row.cell, row.policy)]:
            name += f" (changes {share:.1%} of the output)"
        slower = f"{row.slower_than_best:.3f}x"
        first = ttft[(row.cell, row.policy)]
        times = [
            format_seconds(row.mean_tpot_s),
            slower,
            interval,
            verdict,
            "" if first is None else format_seconds(first),
        ]
        rows.append([where, name, *times, limited[(row.cell, row.policy)]])
    columns = ["where", "policy", "mean TPOT", "vs best", "95 % interval", "", "mean TTFT", "limited by"]
    print_table(columns, rows)
    for cliff in result.cliffs:
        console.print(
            f"cliff: {cliff.policy} {cliff.trace} {cliff.machine}: {cliff.smaller} to {cliff.larger} "
            f"({cliff.size_ratio:.2f}x the cache) runs {cliff.speedup:.2f}x as fast",
            markup=False,
        )
    for odd in result.paradoxes:
        console.print(
            f"more hits, less speed: {odd.hits_more} ({odd.hit_rates[0]:.1%}) runs slower than {odd.runs_faster} "
            f"({odd.hit_rates[1]:.1%}) at {odd.cell.gpu_experts}: {odd.why}",
            markup=False,
        )
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def to_csv(result: ComparisonResult) -> str:
    """One line for each run."""
    text = io.StringIO()
    columns = [
        name
        for name in type(result.runs[0]).model_fields
        if name not in ("cell", "requests", "tpot_s", "evidence_shares")
    ]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trace", "machine", "gpu_experts", "seed", *columns])
    for run in result.runs:
        cell = run.cell
        writer.writerow(
            [cell.trace, cell.machine, cell.gpu_experts, cell.seed, *(getattr(run, name) for name in columns)]
        )
    return text.getvalue()
