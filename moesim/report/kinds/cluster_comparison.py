"""The report of a comparison on clusters, read from its file alone. Words and order are in ``systems.html.j2``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from markupsafe import Markup

from moesim.report.figures import systems as drawn
from moesim.report.figures.canvas import draw
from moesim.report.render import given, render, split_warning
from moesim.results.cluster_comparison import ClusterComparisonResult, SystemRow
from moesim.results.result import load_versioned

FILE = "clusters.json"


@dataclass(frozen=True)
class Section:
    """The systems of one trace and machine."""

    title: str
    answer: str
    rows: Sequence[SystemRow]
    figure: Markup


def page(path: Path) -> str:
    """The page of a saved comparison.

    Raises:
        ResultError: it can't be read.
    """
    return render_systems(load_versioned(path, ClusterComparisonResult))


def render_systems(result: ClusterComparisonResult) -> str:
    """A comparison as one self-contained HTML page: the same comparison gives the same bytes."""
    model = result.base_scenario["model"]
    return render(
        "systems.html.j2",
        result=result,
        title=f"{model}: systems on a cluster",
        question=result.question or "Which system is fastest?",
        answer=" ".join(result.answer),
        warnings=[split_warning(warning) for warning in result.warnings],
        sections=list(sections(result)),
        colours=drawn.COLOURS,
        drops=any(row.dropped_share for row in result.rows),
        comparison=_yaml({key: item for key, item in result.comparison.items() if item}),
        scenario=_yaml(given(result.base_scenario)),
    )


def sections(result: ClusterComparisonResult) -> Iterator[Section]:
    """One for each trace, machine and seed."""
    found: dict[tuple[str, str, int], list[SystemRow]] = {}
    for row in result.rows:
        found.setdefault((row.trace, row.machine, row.seed), []).append(row)
    for (key, rows), answer in zip(found.items(), result.answer, strict=True):
        title = ", ".join(part for part in key[:2] if part) or "Systems"
        height = 0.6 + 0.3 * len(rows)
        yield Section(title, answer, rows, draw(drawn.steps, rows, height_in=height, alt="Step of each system"))


def _yaml(data: object) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
