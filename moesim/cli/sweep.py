"""``moesim sweep``: many runs, on a grid or at random."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moesim.cli.console import AllowCodeOption, JsonOption, err, many_runs, out, output_folder, print_table
from moesim.units import format_seconds

if TYPE_CHECKING:
    from moesim.results.sweep import SweepResult
    from moesim.studies.points import Progress

DEFAULT_OUT = Path("moesim-out")
COLUMNS = ["output tokens/s", "TTFT p50", "TPOT p50", "bound by"]
CLUSTER_COLUMNS = ["step", "tokens/s per GPU", "imbalance", "exposed", "fits", "bound by"]
MAX_SHOWN = 40


def sweep(
    sweep_file: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (YAML).")],
    out_dir: Annotated[Path | None, typer.Option("--out", help="Default: moesim-out/SWEEP.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of finished runs; several sweeps may share one. Default: DIR/runs.")
    ] = None,
    executor: Annotated[
        Literal["processes", "ray"], typer.Option(help="Processes of this machine, or Ray (extra `ray`).")
    ] = "processes",
    processes: Annotated[int | None, typer.Option(min=1, max=4096, help="Default: one for each core.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster, or `auto`; default: one of this machine's own.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry-failed", help="Run again what has failed before.")] = False,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario with its keys varied: a grid, random draws, or both.

    Finished runs are kept in the store, so that a sweep that was stopped, or killed, goes on where it was.
    """
    from moesim.results.result import write_text
    from moesim.studies.execution import executor_of
    from moesim.studies.sweep import load_sweep, points_of, run_sweep

    wanted, base = load_sweep(sweep_file)
    runner = executor_of(executor, processes, ray_address)
    with output_folder(out_dir or DEFAULT_OUT / sweep_file.stem) as folder:
        last: list[Progress] = []
        with many_runs("sweeping", len(points_of(wanted))) as tell:

            def watch(now: Progress) -> None:
                last[:] = [now]
                tell(now)

            kept = store or folder / "runs"
            result = run_sweep(wanted, base, kept, runner, retry=retry, allow_code=allow_code, progress=watch)
        outputs = {"sweep.json": result.to_json(), "sweep.csv": result.to_csv()}
        for name, text in outputs.items():
            write_text(folder / name, text)
    err().print(f"{last[0].ran} ran, {last[0].found} from the store, {last[0].failed} failed", style="dim")
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        print_sweep(result)
        out().print("\nwrote " + ", ".join(str(folder / name) for name in outputs), markup=False)


def print_sweep(result: SweepResult) -> None:
    """The points by what they yield, best first, then the failures."""
    console = out()
    if result.question:
        console.print(result.question, style="bold", markup=False)
    ran = [row for row in result.rows if row.status == "ok"]
    keys = list(dict.fromkeys(key for row in result.rows for key in row.settings))
    on_clusters = bool(ran) and all("step_s.mean" in row.figures for row in ran)
    rate = "tokens_per_s" if on_clusters else "output_tokens_per_s"
    ran.sort(key=lambda row: -_number(row.figures.get(rate)))
    cells = _of_cluster if on_clusters else _of_machine
    rows = [[*(str(row.settings.get(key, "")) for key in keys), *cells(row.figures)] for row in ran[:MAX_SHOWN]]
    if rows:
        print_table([*keys, *(CLUSTER_COLUMNS if on_clusters else COLUMNS)], rows)
    if len(ran) > MAX_SHOWN:
        console.print(f"… and {len(ran) - MAX_SHOWN} more in sweep.csv", markup=False)
    for row in [row for row in result.rows if row.status == "failed"][:MAX_SHOWN]:
        settings = ", ".join(f"{key}={value}" for key, value in row.settings.items())
        console.print(f"failed: {settings}: {row.message}", style="red", markup=False)
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _of_machine(figures: Mapping[str, object]) -> list[str]:
    """A point's cells of ``COLUMNS``."""
    return [
        f"{_number(figures.get('output_tokens_per_s')):.2f}",
        _seconds(figures.get("ttft_s.p50")),
        _seconds(figures.get("tpot_s.p50")),
        str(figures.get("bound_by", "")),
    ]


def _of_cluster(figures: Mapping[str, object]) -> list[str]:
    """A point's cells of ``CLUSTER_COLUMNS``."""
    return [
        _seconds(figures.get("step_s.mean")),
        f"{_number(figures.get('tokens_per_s_per_gpu')):,.0f}",
        f"{_number(figures.get('imbalance')):.2f}",
        f"{_number(figures.get('exposed_share')):.1%}",
        "yes" if figures.get("fits") else "no",
        str(figures.get("bound_by", "")),
    ]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _seconds(value: object) -> str:
    return format_seconds(float(value)) if isinstance(value, (int, float)) else "–"
