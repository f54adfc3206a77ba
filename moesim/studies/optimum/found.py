"""What a problem's module hands back."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.optimal.answer import Answer
from moesim.results.optimum import Finding, Problem
from moesim.setup import Schedule


@dataclass(frozen=True)
class Found:
    """A finding, and the file that holds its solution: a schedule, or text; None where there is none to replay."""

    finding: Finding
    file: Schedule | str | None = None


def finding(
    problem: Problem,
    question: str,
    rule: str,
    answer: Answer,
    *,
    ours: float | None = None,
    ours_name: str | None = None,
    figures: dict[str, float | str | None] | None = None,
) -> Finding:
    """An answer as it is saved."""
    return Finding(
        problem=problem,
        question=question,
        rule=rule,
        unit=answer.unit,
        status=answer.status,
        value=answer.value,
        bound=answer.bound,
        gap=answer.gap,
        solver=answer.solver,
        seconds=answer.seconds,
        ours=ours,
        ours_name=ours_name,
        figures=figures or {},
    )
