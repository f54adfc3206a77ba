"""The reports that the repository ships: an entry of ``reports/reports.yaml`` makes each, and makes it again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moesim.api import run
from moesim.documents import read_yaml, validate
from moesim.errors import Fault, ResultError, nearest
from moesim.results.capacity import CapacityResult
from moesim.results.cluster_comparison import ClusterComparisonResult
from moesim.results.comparison import ComparisonResult
from moesim.results.parallel import ParallelResult
from moesim.results.result import load_versioned, write_text
from moesim.results.saved import SavedResult
from moesim.results.serving import ServingResult
from moesim.results.trace_figures import SavedTraces, saved_traces
from moesim.scenario import load_scenario
from moesim.studies.capacity.answer import answer
from moesim.studies.capacity.plan import load_plan
from moesim.studies.cluster_ranking import conclude
from moesim.studies.compare import compare, load_comparison, points_of
from moesim.studies.execution import Processes
from moesim.studies.trace_comparison import described

MANIFEST = "reports.yaml"
INDEX = "README.md"
#: Numbers of the same scenario may differ by this much between versions of numpy.
TOLERANCE = 1e-9
#: Where results of other kinds than a run on one machine are kept.
FILES: dict[type, str] = {
    ServingResult: "serving.json",
    ParallelResult: "parallel.json",
    ClusterComparisonResult: "clusters.json",
}


class ShippedReport(BaseModel):
    """One report: what it is made from (paths from the manifest's folder); its folder has the same name as its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenario: str | None = None
    comparison: str | None = None
    traces: list[str] | None = Field(None, min_length=1)
    plan: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> ShippedReport:
        if len(self.model_fields_set) != 1:
            raise ValueError("needs one of: scenario, comparison, traces, plan")
        return self


class Manifest(BaseModel):
    """All shipped reports, by folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reports: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")], ShippedReport]


def build_reports(folder: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Run what shipped reports are made from, and write their files; yields each as it is written.

    Args:
        folder: where the manifest is.
        names: the reports to make; none: all.

    Raises:
        ResultError: no such report, or the manifest is wrong.
    """
    from moesim.report import write_report

    for path, result in _results(folder, names):
        write_text(path, result.to_json())
        yield path
        page = path.parent / "report.html"
        write_report(path, page)
        yield page
    write_text(folder / INDEX, _index(folder))
    yield folder / INDEX


def check_reports(folder: Path, names: Collection[str] = ()) -> Iterator[str]:
    """As :func:`build_reports`, but compare numbers with the saved ones and write nothing; a line for each report.

    Raises:
        ResultError: also where numbers differ; names the first of each report.
    """
    faults = []
    for path, result in _results(folder, names):
        saved, found = load_versioned(path, type(result)).model_dump(mode="json"), result.model_dump(mode="json")
        difference = next(_differences(saved, found, ""), None)
        if difference is None:
            yield f"{path}: the numbers hold"
        else:
            faults.append(Fault(str(path), difference, "`moesim reports build`, and look at what changed"))
    index = folder / INDEX
    if not index.is_file() or index.read_text(encoding="utf-8") != _index(folder):
        faults.append(
            Fault(
                str(index), "does not tell what the pages tell", "`moesim reports build traces` (of any name) writes it"
            )
        )
    if faults:
        raise ResultError(faults)


def _results(
    folder: Path, names: Collection[str]
) -> Iterator[tuple[Path, SavedResult | ComparisonResult | ClusterComparisonResult | SavedTraces | CapacityResult]]:
    """The file of each report, and what it should hold now."""
    manifest = _manifest(folder)
    unknown = [name for name in names if name not in manifest.reports]
    if unknown:
        raise ResultError([Fault(MANIFEST, f"no report {name!r}", nearest(name, manifest.reports)) for name in unknown])
    for name, report in manifest.reports.items():
        if names and name not in names:
            continue
        if report.scenario is not None:
            ran = run(folder / report.scenario, study=True)
            yield folder / name / FILES.get(type(ran), "result.json"), ran
        elif report.comparison is not None:
            compared = _compared(folder / report.comparison)
            yield folder / name / FILES.get(type(compared), "comparison.json"), compared
        elif report.traces is not None:
            found = saved_traces(described([folder / path for path in report.traces]))
            yield folder / name / "trace.json", found
        elif report.plan is not None:
            yield folder / name / "capacity.json", _planned(folder / report.plan)


def _manifest(folder: Path) -> Manifest:
    return validate(read_yaml(folder / MANIFEST, ResultError), Manifest, ResultError)


def _index(folder: Path) -> str:
    """Of the reports that have a page by now."""
    from moesim.report.index import index_of

    made = [name for name in _manifest(folder).reports if (folder / name / "report.html").is_file()]
    return index_of(folder, made)


def _planned(path: Path) -> CapacityResult:
    with tempfile.TemporaryDirectory() as store:
        return answer(load_plan(path), Path(store), Processes())


def _compared(path: Path) -> ComparisonResult | ClusterComparisonResult:
    comparison, base = load_comparison(path)
    with tempfile.TemporaryDirectory() as store:
        runs = compare(base, points_of(comparison), Path(store))
    return conclude(comparison, load_scenario(base).scenario, runs)


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
