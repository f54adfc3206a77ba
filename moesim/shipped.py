"""The reports that the repository ships: an entry of ``reports/reports.yaml`` makes each, and makes it again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from moesim.api import run
from moesim.documents import read_yaml, validate
from moesim.errors import Fault, ResultError
from moesim.results import Result, load_result, save_result
from moesim.results.result import write_text

MANIFEST = "reports.yaml"
#: Numbers of the same scenario may differ by this much between versions of numpy.
TOLERANCE = 1e-9


class ShippedReport(BaseModel):
    """One report: the scenario that it is made from; its folder has the same name as its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str


class Manifest(BaseModel):
    """All shipped reports, by folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reports: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], ShippedReport]


def build_reports(folder: Path) -> Iterator[Path]:
    """Run every shipped report's scenario and write its result and report; yields each file as it is written."""
    from moesim.report import render_run

    for name, result in _results(folder):
        save_result(result, folder / name / "result.json")
        write_text(folder / name / "report.html", render_run(result))
        yield folder / name / "report.html"


def check_reports(folder: Path) -> Iterator[str]:
    """Run every shipped report's scenario and compare its numbers with the saved ones; yields one line for each.

    Raises:
        ResultError: numbers differ; names the first of each report.
    """
    faults = []
    for name, result in _results(folder):
        path = folder / name / "result.json"
        saved, found = load_result(path).model_dump(mode="json"), result.model_dump(mode="json")
        difference = next(_differences(saved, found, ""), None)
        if difference is None:
            yield f"{path}: the numbers hold"
        else:
            faults.append(Fault(str(path), difference, "`moesim reports build`, and look at what changed"))
    if faults:
        raise ResultError(faults)


def _results(folder: Path) -> Iterator[tuple[str, Result]]:
    manifest = validate(read_yaml(folder / MANIFEST, ResultError), Manifest, ResultError)
    for name, report in manifest.reports.items():
        yield name, run(folder / report.scenario, study=True)


def _differences(saved: Any, found: Any, place: str) -> Iterator[str]:
    """Where two plain values differ, depth first."""
    if isinstance(saved, dict) and isinstance(found, dict) and saved.keys() == found.keys():
        for key in saved:
            yield from _differences(saved[key], found[key], f"{place}.{key}".lstrip("."))
    elif isinstance(saved, list) and isinstance(found, list) and len(saved) == len(found):
        for index, pair in enumerate(zip(saved, found, strict=True)):
            yield from _differences(*pair, f"{place}[{index}]")
    elif isinstance(saved, float) and isinstance(found, (int, float)):
        if not math.isclose(saved, found, rel_tol=TOLERANCE, abs_tol=1e-15):
            yield f"{place} was {saved} and is {found}"
    elif saved != found:
        yield f"{place} was {saved!r:.60} and is {found!r:.60}"
