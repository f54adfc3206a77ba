"""What the commands share: streams, progress, tables, and the options that several of them take."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from moesim.errors import FileError
from moesim.units import format_seconds

if TYPE_CHECKING:
    from moesim.studies.points import Progress as RunsProgress

#: Columns of tables that don't go to a terminal.
FILE_WIDTH = 160
#: Between two lines of progress where stderr is no terminal.
LINE_EVERY_S = 30.0
_state = {"debug": False, "quiet": False}

AllowCodeOption = Annotated[bool, typer.Option("--allow-code", help="Run policies that are named as files.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def set_flags(*, debug: bool, quiet: bool) -> None:
    """Remember the options that stand before the command."""
    _state.update(debug=debug, quiet=quiet)


def is_debug() -> bool:
    """Whether errors show their traceback."""
    return _state["debug"]


def out() -> Console:
    """Results: the same bytes for the same input, also when they go to a file."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def err() -> Console:
    """Progress, timings and warnings."""
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=_state["quiet"])


def fail(message: str, code: int) -> NoReturn:
    """Print an error (after its traceback, where that is wanted) and exit."""
    if is_debug():
        traceback.print_exc()
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, style="red", markup=False)
    sys.exit(code)


def print_json(value: Any) -> None:
    """JSON to stdout, without NaN."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A plain table; columns whose cells are all numbers are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in rows)
        last = index == len(columns) - 1
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=not last)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    out().print(table)


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) or (isinstance(cell, str) and cell[:1].isdigit())


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """A progress bar on stderr, shown on a terminal only."""
    console = err()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or _state["quiet"],
    )
    with bar:
        bar.add_task(what, total=total)
        yield bar


@contextmanager
def many_runs(what: str, total: int) -> Iterator[Callable[[RunsProgress], None]]:
    """Tells on stderr how many of many runs are done, and when the last one will be: a bar, or now and then a line."""
    console, said_at = err(), time.monotonic()
    with progress(what, total) as bar:

        def tell(now: RunsProgress) -> None:
            nonlocal said_at
            left = "" if now.remaining_s is None else f", about {format_seconds(now.remaining_s)} left"
            failed = f", {now.failed} failed" if now.failed else ""
            told = f"{what}: {now.done} of {now.total} done ({now.found} from the store{failed}){left}"
            bar.update(bar.task_ids[0], completed=now.done, description=told)
            if not console.is_terminal and time.monotonic() - said_at > LINE_EVERY_S:
                said_at = time.monotonic()
                console.print(told, markup=False)

        yield tell


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, made before any long work; where that work fails, what was made for it is gone again.

    Raises:
        FileError: it is a file, or can't be made or written.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        told = "is a file, not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise FileError.of(str(path), f"can't be written to: {told}", "choose another --out") from None
    try:
        yield path
    except BaseException:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """As :func:`output_folder`, for one file in it."""
    if path.exists() and not path.is_file():
        raise FileError.of(str(path), f"is a {'directory' if path.is_dir() else 'device'}, not a file", "name a file")
    with output_folder(path.parent):
        yield path
