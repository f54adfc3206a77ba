"""A card against a result: errors of fitted and of held-out rows, apart, beside the measurement's own spread.

The error of a row is ``|predicted - measured| / measured`` of medians, also where the prediction lies inside of the
row's own p10 to p90: how many do stands beside it. Only sound rows count; how many were not is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from moesim.hardware import MachineSpec
from moesim.microbench.build import tree_sha256
from moesim.microbench.decode_loop import LoopPrediction, predict_loop
from moesim.microbench.fit import constants_by_group, predicted_seconds
from moesim.microbench.models import group_key
from moesim.microbench.schema import Result, Row, read_result

MIB = 2**20
#: Median error that the issue asks for on held-out rows, in percent, by class of rows.
TARGETS = {
    "copies of 1 MB and more": 5.0,
    "smaller copies": 15.0,
    "expert time": 10.0,
    "grouped experts": 15.0,
    "overlap": 15.0,
}
#: Of the decode loop: median error of its whole time in percent, and of the stall's share in points.
LOOP_TARGETS = (10.0, 5.0)
_COPIES = ("copy", "copy_host_kind", "copy_bidir", "stage")
_CLASSES = {
    "expert_ffn": "expert time",
    "cpu_expert": "expert time",
    "grouped": "grouped experts",
    "overlap": "overlap",
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Errors(_Part):
    """Errors in percent over some rows. ``spread``: their own, the median of (p90 - p10) / p50; ``inside``: how many
    rows' predictions lie between their p10 and p90.
    """

    rows: int
    median: float
    p90: float
    bias: float
    spread: float
    inside: int
    worst: str
    worst_error: float


class Line(_Part):
    """One benchmark, or one class of rows, on one side of the split."""

    name: str
    side: Literal["fit", "holdout"]
    errors: Errors
    target: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the median reaches the target; empty without one."""
        return "" if self.target is None else _verdict(self.errors.median, self.target)


class LoopErrors(_Part):
    """Medians over the decode loop's configurations: error of its time in percent, of the stall's share in points."""

    rows: int
    total: float
    stall: float

    @property
    def verdicts(self) -> tuple[str, str]:
        """Whether each reaches its target."""
        return _verdict(self.total, LOOP_TARGETS[0]), _verdict(self.stall, LOOP_TARGETS[1])


class Validation(_Part):
    """The outcome.

    Attributes:
        conditions: who else was at work while it was measured.
        unsound: rows that were flagged (noisy, contended, wrong).
        unpredicted: rows for which the card has no constants.
    """

    card: str
    title: str
    result_sha256: str
    fitted_from_it: bool
    older_suite: bool
    conditions: str
    date: str
    rows: int
    unsound: int
    unpredicted: int
    classes: list[Line]
    benches: list[Line]
    groups: list[Line]
    loops: list[LoopPrediction]
    loop_errors: LoopErrors | None
    skipped: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")


def validate_card(card: MachineSpec, path: Path) -> Validation:
    """Hold a card against a result file.

    Raises:
        FileError, MicrobenchError: the file is no result.
    """
    result = read_result(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    constants = constants_by_group(card.fits)
    sound = [row for row in result.rows if row.sound and row.bench != "replay"]
    measured_loops = [row for row in result.rows if row.bench == "replay" and row.sound]
    loops = [loop for row in measured_loops if (loop := predict_loop(row, constants)) is not None]
    scored = [(row, seconds) for row in sound if (seconds := predicted_seconds(row, constants)) is not None]
    return Validation(
        card=card.name,
        title=card.title,
        result_sha256=sha256,
        fitted_from_it=sha256 == card.origin.result_sha256,
        older_suite=any(old != tree_sha256(program) for program, old in result.source.tree_sha256.items()),
        conditions=_conditions(result),
        date=result.run.started_utc[:10],
        rows=len(result.rows),
        unsound=sum(not row.sound for row in result.rows),
        unpredicted=len(sound) - len(scored),
        classes=_lines(scored, _class_of),
        benches=_lines(scored, lambda row: row.bench),
        groups=_lines(scored, lambda row: f"{row.bench}: {group_key(row)[1]}"),
        loops=loops,
        loop_errors=loop_errors(loops),
        skipped=result.skips_told(),
    )


def _conditions(result: Result) -> str:
    others = result.run.others
    if others is None:
        return "Who else was at work meanwhile was not recorded."
    told = f"Meanwhile other programs kept {others.busy_cpus:.2g} of {result.machine.cpu_threads} CPUs busy"
    held = ", but were kept off them while rows of memory and arithmetic were measured"
    return told + (held if result.run.realtime else "") + "."


def _class_of(row: Row) -> str | None:
    if row.bench in _COPIES and row.case.get("op") != "pin":
        return "copies of 1 MB and more" if row.bytes >= 1e6 else "smaller copies"
    return _CLASSES.get(row.bench)


def _lines(scored: Sequence[tuple[Row, float]], name_of: Any) -> list[Line]:
    """A line for each name and side, by name, the fitted side first."""
    together: dict[tuple[str, Literal["fit", "holdout"]], list[tuple[Row, float]]] = {}
    for row, seconds in scored:
        if (name := name_of(row)) is not None:
            together.setdefault((name, row.split), []).append((row, seconds))
    return [
        Line(name=name, side=side, errors=errors_of(members), target=TARGETS.get(name))
        for (name, side), members in sorted(together.items())
    ]


def errors_of(scored: Sequence[tuple[Row, float]]) -> Errors:
    """Errors over rows and what was predicted for each, in percent."""
    signed = np.array([(seconds / row.seconds - 1) * 100 for row, seconds in scored])
    inside = np.array([row.time_us.p10 <= seconds * 1e6 <= row.time_us.p90 for row, seconds in scored])
    absolute = np.abs(signed)
    worst = int(np.argmax(absolute))
    return Errors(
        rows=len(scored),
        median=_percent(np.median(absolute)),
        p90=_percent(np.percentile(absolute, 90)),
        bias=_percent(signed.mean()),
        spread=_percent(np.median([row.spread for row, _ in scored]) * 100),
        inside=int(inside.sum()),
        worst=scored[worst][0].told,
        worst_error=_percent(signed[worst]),
    )


def loop_errors(loops: Sequence[LoopPrediction]) -> LoopErrors | None:
    """Over the configurations of the decode loop; None where none was measured."""
    if not loops:
        return None
    totals = [abs(loop.error_percent) for loop in loops]
    stalls = [abs(loop.predicted_stall - loop.measured_stall) * 100 for loop in loops]
    return LoopErrors(rows=len(loops), total=_percent(np.median(totals)), stall=_percent(np.median(stalls)))


def _verdict(value: float, target: float) -> str:
    return "reached" if value <= target else "missed"


def _percent(value: Any) -> float:
    return round(float(value), 1)
