"""``moesim bench``: how fast the compiled replay is, beside what was measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.console import JsonOption, out, output_folder, print_table, progress
from moesim.errors import PolicyError, nearest

if TYPE_CHECKING:
    from moesim.studies.bench_rows import BenchRow


def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[replay|timeline|stream|curve|startup|optima|clusters|serving|two-nodes]...", help="Default: all."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=99, help="Turns that each contender has.")] = 3,
    out_dir: Annotated[Path | None, typer.Option("--out", help="A folder for bench.json and bench.md.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the compiled replay: rates, and ratios to libCacheSim, to a C loop and to the SimPy engine; and optima.

    All times are CPU time; those of the replay are over 20 million activations or more. The whole takes about ten
    minutes. Part "optima": how long they take at the sizes of real models, and their gaps. Part "clusters": how long a
    pass through DeepSeek-V3 takes to simulate on 8 to 1,024 GPUs, with a plot in DIR.
    Part "serving": requests per CPU second, and a day of a million. Part "two-nodes": a sweep on two Ray nodes of
    which one is killed (extra `ray`).
    """
    from moesim.studies import bench as study
    from moesim.studies import bench_rows

    wanted = list(dict.fromkeys(parts or study.PARTS))
    for part in wanted:
        if part not in study.PARTS:
            raise PolicyError.of("bench", f"unknown part {part!r}", nearest(part, study.PARTS))
    with output_folder(out_dir or Path()) as folder:
        machine = bench_rows.machine_facts()
        with progress("measuring") as bar:
            told = lambda what: bar.update(bar.task_ids[0], description=what)  # noqa: E731
            rows = list(study.bench(wanted, rounds, told))
        written = bench_rows.write_report(rows, machine, wanted, folder) if out_dir else []
        if out_dir and "clusters" in wanted:
            written = [*written, _plotted(rows, folder / "clusters.svg")]
    if as_json:
        out().file.write(bench_rows.to_json(rows, machine))
        return
    print_table(bench_rows.COLUMNS, [row.cells() for row in rows])
    for path in written:
        out().print(f"wrote {path}", markup=False)


def _plotted(rows: Sequence[BenchRow], path: Path) -> Path:
    """The plot of how time grows with GPUs and tokens."""
    from moesim.report.figures.canvas import save
    from moesim.report.figures.scaling import scaling
    from moesim.studies.bench_clusters import curves

    save(scaling, curves(rows), height_in=2.2, path=path)
    return path
