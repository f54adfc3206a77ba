"""Importer of ``nvbandwidth --json``: other people's measurements of links, as rows.

NVIDIA's nvbandwidth copies one buffer size (512 MiB unless ``-b`` said otherwise) in each of its test cases and prints
a matrix of GB/s (1e9) for each, or of nanoseconds for latency tests. Cells that were not measured are ``"N/A"``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.documents import read_text
from moesim.errors import MicrobenchError


@dataclass(frozen=True)
class LinkReading:
    """One cell of a test case's matrix. ``unit``: ``GB/s`` or ``ns``; ``row``, ``column``: device numbers."""

    test: str
    row: int
    column: int
    value: float
    unit: str


@dataclass(frozen=True)
class LinkReadings:
    """What a file holds."""

    version: str
    readings: list[LinkReading]
    not_run: dict[str, str]


def read_nvbandwidth(path: Path) -> LinkReadings:
    """The readings of a file.

    Raises:
        FileError: it can't be read.
        MicrobenchError: it is not nvbandwidth's JSON, or has impossible numbers.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise MicrobenchError.of(
            f"{path}:{error.lineno}", f"not valid JSON: {error.msg}", "nvbandwidth --json"
        ) from None
    top = content.get("nvbandwidth") if isinstance(content, dict) else None
    if not isinstance(top, dict) or not isinstance(top.get("testcases"), list):
        hint = "it has the keys nvbandwidth, testcases; made by `nvbandwidth --json`"
        raise MicrobenchError.of(str(path), "is not nvbandwidth's JSON", hint)
    readings: list[LinkReading] = []
    not_run: dict[str, str] = {}
    for place, test in enumerate(top["testcases"]):
        name, matrix = (test.get("name"), test.get("bandwidth_matrix")) if isinstance(test, dict) else (None, None)
        if not isinstance(name, str):
            raise MicrobenchError.of(f"{path}: testcases.{place}", "a test case has no name", "is the file whole?")
        if matrix is None:
            not_run[name] = str(test.get("status", "no matrix"))
            continue
        readings += _cells(path, name, matrix)
    return LinkReadings(str(top.get("Version") or top.get("version") or "unknown"), readings, not_run)


def _cells(path: Path, name: str, matrix: Any) -> Iterator[LinkReading]:
    unit = "ns" if "latency" in name else "GB/s"
    if not isinstance(matrix, list) or not all(isinstance(line, list) for line in matrix):
        raise MicrobenchError.of(f"{path}: {name}", "the matrix is no list of lists", "is the file whole?")
    for row, line in enumerate(matrix):
        for column, cell in enumerate(line):
            if str(cell).strip().upper() == "N/A":
                continue
            try:
                value = float(cell)
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value) or value < 0:
                raise MicrobenchError.of(f"{path}: {name}[{row}][{column}]", f"must be a number (got {cell!r})")
            yield LinkReading(name, row, column, value, unit)
