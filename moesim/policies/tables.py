"""Small tables that policies read: one value for each expert, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moesim.documents import read_text
from moesim.errors import Fault, PolicyError

MAX_TABLE_BYTES = 2**26


def expert_column(
    path: Path, column: str, num_layers: int, num_experts: int, kind: Callable[[str], Any] = str
) -> dict[int, Any]:
    """The values of a CSV file's ``column`` by key, from its columns ``layer`` and ``expert`` (both from 0).

    Raises:
        FileError: the file can't be read.
        PolicyError: with every line that is wrong.
    """
    rows = csv.DictReader(read_text(path, MAX_TABLE_BYTES).splitlines())
    wanted = ("layer", "expert", column)
    if missing := [name for name in wanted if name not in (rows.fieldnames or ())]:
        raise PolicyError.of(str(path), f"has no column {', '.join(missing)}", "a first line " + ",".join(wanted))
    values: dict[int, Any] = {}
    faults = []
    for row in rows:
        place = f"{path}:{rows.line_num}"
        try:
            layer, expert, value = int(row["layer"]), int(row["expert"]), kind(row[column].strip())
        except (TypeError, ValueError, AttributeError):
            faults.append(Fault(place, f"is not layer, expert and {column}", "as in 0,5,...; both counted from 0"))
            continue
        if not (0 <= layer < num_layers and 0 <= expert < num_experts):
            told = f"layer {layer}, expert {expert} is not among {num_layers} MoE layers of {num_experts} experts"
            faults.append(Fault(place, told))
        values[layer * num_experts + expert] = value
    if faults:
        raise PolicyError(faults)
    return values
