"""``moesim report`` and ``moesim reports build``: reports from saved results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.console import out, output_file
from moesim.errors import FileError

reports = typer.Typer(help="The reports that the repository ships.", no_args_is_help=True, rich_markup_mode=None)


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `run`, `compare` or `trace report` wrote to.")
    ],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; default: DIR/report.html.")
    ] = None,
) -> None:
    """Render the report of a saved run, comparison or trace description."""
    from moesim.report import write_report

    if not folder.is_dir():
        raise FileError.of(str(folder), "is not a folder", "give the folder that `moesim run` wrote to")
    with output_file(output or folder / "report.html") as target:
        write_report(folder, target)
    out().print(f"wrote {target}", markup=False)


@reports.command("build")
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="As reports.yaml names them; default: all.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare numbers with what is there; write nothing.")] = False,
    folder: Annotated[Path, typer.Option(help="The repository's reports.")] = Path("reports"),
) -> None:
    """Run again what stands in reports/, and write it anew (or compare)."""
    from moesim.shipped import build_reports, check_reports

    if check:
        for line in check_reports(folder, names or ()):
            out().print(line, markup=False)
    else:
        for path in build_reports(folder, names or ()):
            out().print(f"wrote {path}", markup=False)
