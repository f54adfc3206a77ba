"""The output of NVIDIA's nvbandwidth, text or JSON (``--json``): other people's measurements of links.

It copies one buffer size (512 MiB unless ``-b`` said otherwise) in each of its test cases and gives a matrix of GB/s
(1e9) for each, or of nanoseconds for latency tests. Cells that were not measured are ``N/A``. The text has
``Running NAME.``, a line that says what the matrix is, one of column numbers, and rows that begin with a number.
Source: the README of NVIDIA/nvbandwidth (commit 66746a3b).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.documents import read_text
from moesim.errors import FileError

MAX_BYTES = 2**26
_RUNNING = re.compile(r"^\s*Running\s+(\w+)")
_WAIVED = re.compile(r"^\s*(?:Waiving|Waived)[:\s]\s*(.*)$")
_VERSION = re.compile(r"^nvbandwidth Version:\s*(\S+)", re.M)
_ROW = re.compile(r"^\s*(\d+)\s+((?:(?:\d+\.\d+|N/A)\s*)+)$")


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
    """What a file holds. ``not_run``: test case -> why."""

    version: str
    readings: list[LinkReading]
    not_run: dict[str, str]

    def bandwidths(self) -> dict[str, list[float]]:
        """GB/s of each test case, over its matrix."""
        found: dict[str, list[float]] = {}
        for reading in self.readings:
            if reading.unit == "GB/s":
                found.setdefault(reading.test, []).append(reading.value)
        return found


def read_nvbandwidth(path: Path) -> LinkReadings:
    """The readings of a file.

    Raises:
        FileError: it can't be read, is not nvbandwidth's output, or has impossible numbers.
    """
    text = read_text(path, MAX_BYTES)
    found = _from_json(path, text) if text.lstrip().startswith("{") else _from_text(text)
    if not found.readings and not found.not_run:
        raise FileError.of(
            str(path), "holds no bandwidth of nvbandwidth", "the text that it prints, or that of `--json`"
        )
    return found


def _from_text(text: str) -> LinkReadings:
    version = _VERSION.search(text)
    readings: list[LinkReading] = []
    not_run: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if running := _RUNNING.match(line):
            name = running[1]
        elif name and (waived := _WAIVED.match(line)):
            not_run[name] = waived[1].strip() or "waived"
        elif name and "." in line and (row := _ROW.match(line)):
            cells = enumerate(row[2].split())
            readings += [
                LinkReading(name, int(row[1]), column, float(cell), _unit(name))
                for column, cell in cells
                if cell != "N/A"
            ]
    return LinkReadings(version[1] if version else "unknown", readings, not_run)


def _from_json(path: Path, text: str) -> LinkReadings:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise FileError.of(f"{path}:{error.lineno}", f"is not valid JSON: {error.msg}", "is the file whole?") from None
    top = content.get("nvbandwidth") if isinstance(content, dict) else None
    if not isinstance(top, dict) or not isinstance(top.get("testcases"), list):
        raise FileError.of(str(path), "is not nvbandwidth's JSON: it lacks the list nvbandwidth.testcases")
    readings: list[LinkReading] = []
    not_run: dict[str, str] = {}
    for place, test in enumerate(top["testcases"]):
        name, matrix = (test.get("name"), test.get("bandwidth_matrix")) if isinstance(test, dict) else (None, None)
        if not isinstance(name, str):
            raise FileError.of(f"{path}: testcases.{place}", "a test case has no name", "is the file whole?")
        if matrix is None:
            not_run[name] = str(test.get("status", "no matrix"))
            continue
        readings += _cells(path, name, matrix)
    return LinkReadings(str(top.get("Version") or top.get("version") or "unknown"), readings, not_run)


def _cells(path: Path, name: str, matrix: Any) -> Iterator[LinkReading]:
    if not isinstance(matrix, list) or not all(isinstance(line, list) for line in matrix):
        raise FileError.of(f"{path}: {name}", "the matrix is no list of lists", "is the file whole?")
    for row, line in enumerate(matrix):
        for column, cell in enumerate(line):
            if str(cell).strip().upper() in ("N/A", "NONE", ""):
                continue
            try:
                value = float(cell)
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value) or value < 0:
                raise FileError.of(f"{path}: {name}[{row}][{column}]", f"must be a number (got {cell!r})")
            yield LinkReading(name, row, column, value, _unit(name))


def _unit(test: str) -> str:
    return "ns" if "latency" in test else "GB/s"
