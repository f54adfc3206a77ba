"""The output of nvbandwidth, text or JSON (``-j``), as bandwidths by test case.

Text: ``Running NAME.``, a line that says what the matrix is, a line of column numbers, rows that begin with a number,
and ``SUM NAME total``. JSON: ``{"nvbandwidth": {"testcases": [{"name": ..., "bandwidth_matrix": [[...]]}]}}``.
Source: the README of NVIDIA/nvbandwidth (commit 66746a3b).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from moesim.documents import read_text
from moesim.errors import FileError

MAX_BYTES = 2**26
_RUNNING = re.compile(r"^\s*Running\s+(\w+)")
_ROW = re.compile(r"^\s*\d+\s+((?:(?:\d+\.\d+|N/A)\s*)+)$")


def read_nvbandwidth(path: Path) -> dict[str, list[float]]:
    """Bandwidths in GB/s of each test case, over its matrix; those that did not run are left out.

    Raises:
        FileError: it can't be read, or holds no bandwidth.
    """
    text = read_text(path, MAX_BYTES)
    found = dict(_from_json(text) if text.lstrip().startswith("{") else _from_text(text))
    found = {name: values for name, values in found.items() if values}
    if not found:
        raise FileError.of(str(path), "holds no bandwidth of nvbandwidth", "the text that it prints, or that of `-j`")
    return found


def typical(values: list[float]) -> float:
    """The median over the matrix: single pairs may be slower, as on a busy host."""
    return median(values)


def _from_json(text: str) -> Iterator[tuple[str, list[float]]]:
    try:
        data: Any = json.loads(text)
        cases = data["nvbandwidth"]["testcases"]
        for case in cases:
            cells = [cell for row in case.get("bandwidth_matrix", []) for cell in row]
            yield str(case["name"]), [float(cell) for cell in cells if str(cell) not in ("N/A", "None", "")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return


def _from_text(text: str) -> Iterator[tuple[str, list[float]]]:
    name, values = "", list[float]()
    for line in text.splitlines():
        running = _RUNNING.match(line)
        if running:
            yield name, values
            name, values = running[1], []
        elif name and (row := _ROW.match(line)) and "." in line:
            values += [float(cell) for cell in row[1].split() if cell != "N/A"]
    yield name, values
