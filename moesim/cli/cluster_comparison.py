"""``moesim compare`` for systems on clusters: the table, and the file of its rows."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from moesim.cli.console import out, print_table
from moesim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from moesim.results.cluster_comparison import ClusterComparisonResult, SystemRow

#: Of a row, what is a table of its own.
_NESTED = ("breakdown", "evidence_shares")
COLUMNS = [
    *("system", "step", "vs first", "imbalance", "dispatch", "combine"),
    *("exposed", "slower", "dropped", "memory", "bound by"),
]


def print_systems(result: ClusterComparisonResult) -> None:
    """The answer, every system in a line, then what to know."""
    console = out()
    if result.question:
        console.print(result.question, style="bold", markup=False)
    for line in result.answer:
        console.print(line, markup=False)
    for place in dict.fromkeys((row.trace, row.machine) for row in result.rows):
        console.print(", ".join(part for part in place if part), style="bold", markup=False)
        print_table(COLUMNS, [_cells(row) for row in result.rows if (row.trace, row.machine) == place])
    console.print(
        "dispatch, combine: of a layer, median; exposed: of the time, waiting for them; slower: for slower GPUs; "
        "vs first: tokens per second; memory: of the fullest GPU.",
        style="dim",
        markup=False,
    )
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _cells(row: SystemRow) -> list[str]:
    memory = format_bytes(row.needed_bytes_per_gpu) + ("" if row.fits else ": no room")
    return [
        row.system + (f" ({row.chunks} chunks)" if row.chunks > 1 else ""),
        format_seconds(row.step_s),
        f"{row.speedup:.2f}x",
        f"{row.imbalance:.2f}",
        *("" if seconds is None else format_seconds(seconds) for seconds in (row.dispatch_s, row.combine_s)),
        f"{row.exposed_share:.1%}",
        f"{row.waiting_share:.1%}",
        f"{row.dropped_share:.1%}" if row.dropped_share else "",
        memory,
        f"{row.bound_by.removeprefix('waiting: ')} {row.bound_by_share:.0%}",
    ]


def systems_csv(result: ClusterComparisonResult) -> str:
    """One line for each system."""
    text = io.StringIO()
    columns = [name for name in type(result.rows[0]).model_fields if name not in _NESTED]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(row, name) for name in columns] for row in result.rows)
    return text.getvalue()
