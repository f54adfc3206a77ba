"""``moesim validate measured``: how far the cost forms are from a table of measurements.

Any Parquet file with the columns of its kind will do. Rows outside of the forms' domain are counted and named. Each
cell is a GPU, a size class and a slice (the file's own column ``slice`` where it has one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moesim.costs.fitted import Floats, Work
from moesim.costs.measured import ratio
from moesim.hardware.fits import Fit, FitKey, find, shipped_fits
from moesim.studies.measured.catalogue import kind_of, read_measured, read_stats
from moesim.studies.measured.kinds import Group, Kind
from moesim.studies.measured.table import Ints, Table

_CONSTANTS_FROM = {"fitted": "fitted on this GPU", "class": "datasheet and class constants"}


@dataclass(frozen=True)
class Score:
    """Relative errors of some rows, in percent; None where there are no rows."""

    n: int
    mape: float | None
    median: float | None
    p90: float | None
    bias: float | None


@dataclass(frozen=True)
class Cell:
    """A GPU, size class and slice: the form's score, other formulas' MAPE by name, and whose constants were used."""

    gpu: str
    bucket: str
    slice: str
    score: Score
    naive: Mapping[str, float | None]
    constants: str


@dataclass(frozen=True)
class Validation:
    """A table scored."""

    table: str
    bucket_key: str
    cells: tuple[Cell, ...]
    overall: Score
    outside: Mapping[str, int]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """``{"rows": [...], "overall": {...}}`` with what lies outside beside it."""
        rows = [
            {
                "table": self.table,
                "gpu": cell.gpu,
                self.bucket_key: cell.bucket,
                "slice": cell.slice,
                **vars(cell.score),
                "constants": cell.constants,
                "naive_mape": dict(cell.naive),
            }
            for cell in self.cells
        ]
        outside = {"rows": sum(self.outside.values()), "reasons": dict(self.outside)}
        return {"rows": rows, "overall": vars(self.overall), "outside": outside, "notes": list(self.notes)}


@dataclass
class Prediction:
    """Seconds of each row by the form (NaN outside of the domain) and by other formulas, and whose constants."""

    seconds: Floats
    naive: dict[str, Floats] = field(default_factory=dict)
    constants: list[tuple[Ints, str]] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def validate_table(
    path: Path, kind_name: str, stats: Path | None = None, known: Mapping[FitKey, Fit] | None = None
) -> Validation:
    """Score the forms on a file.

    Args:
        stats: workload statistics; by default ``moe_workload_stats.parquet`` beside the file, where it is.
        known: fits to use instead of the shipped ones.

    Raises:
        FileError: unknown kind, or the file is wrong.
    """
    kind = kind_of(kind_name)
    table = read_measured(path, kind)
    return score_table(table, kind, predict(table, kind, read_stats(stats, path), known))


def predict(table: Table, kind: Kind, stats: Table | None, known: Mapping[FitKey, Fit] | None = None) -> Prediction:
    """Seconds of every row of a table."""
    known = shipped_fits() if known is None else known
    extrapolated = 0
    prepared = kind.prepare(table, stats)
    prediction = Prediction(np.full(table.size, np.nan), outside=dict(prepared.outside), notes=prepared.notes)
    for group in prepared.groups:
        found = find(known, group.form.operation, group.card, group.stack)
        if found is None:
            reason = f"{group.form.operation}: no constants for {group.stack}"
            prediction.outside[reason] = prediction.outside.get(reason, 0) + len(group.rows)
            continue
        _fill(prediction, group, *found)
        extrapolated += outside_range(group.work, found[0].fitted_range)
    if extrapolated:
        prediction.notes.append(f"{extrapolated} rows lie outside of the fitted range: extrapolated")
    return prediction


def outside_range(work: Work, span: Mapping[str, tuple[float, float]]) -> int:
    """Rows with a size below or above those that the constants were fitted to."""
    columns = [(work[name] < low) | (work[name] > high) for name, (low, high) in span.items() if name in work]
    return int(np.any(columns, axis=0).sum()) if columns else 0


def _fill(prediction: Prediction, group: Group, fit: Fit, how: str) -> None:
    peaks = group.peaks()
    seconds = group.form.seconds(group.work, peaks, fit.constants)
    prediction.seconds[group.rows] = seconds if fit.profile is None else seconds * ratio(fit.profile, group.work)
    prediction.constants.append((group.rows, how))
    for name, formula in group.naive.items():
        column = prediction.naive.setdefault(name, np.full(len(prediction.seconds), np.nan))
        column[group.rows] = formula(peaks)


def score_table(table: Table, kind: Kind, prediction: Prediction) -> Validation:
    """Compare predictions with the table's latencies, cell by cell."""
    measured = table.number("latency_us") * 1e-6
    outside = dict(prediction.outside)
    measured = np.where(np.isfinite(measured) & (measured > 0), measured, np.nan)
    useless = np.isnan(measured) & ~np.isnan(prediction.seconds)
    if useless.any():
        outside["latency_us missing or not above zero"] = int(useless.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        error = prediction.seconds / measured - 1
        naive = {name: seconds / measured - 1 for name, seconds in prediction.naive.items()}
    fitted = np.zeros(table.size, dtype=bool)
    for rows, how in prediction.constants:
        fitted[rows] = how == "fitted"
    cells = []
    for gpu, bucket, part, rows in _cells(table, kind, ~np.isnan(error)):
        others = {name: _percent(np.abs(column[rows]).mean()) for name, column in naive.items()}
        share = float(fitted[rows].mean())
        how = f"{share:.0%} fitted, else class" if 0 < share < 1 else _CONSTANTS_FROM["fitted" if share else "class"]
        cells.append(Cell(gpu, bucket, part, score(error[rows]), others, how))
    overall = score(error[~np.isnan(error)])
    return Validation(kind.name, kind.bucket_key, tuple(cells), overall, outside, tuple(prediction.notes))


def _cells(table: Table, kind: Kind, inside: Any) -> list[tuple[str, str, str, Ints]]:
    bucket, buckets = kind.buckets(table)
    part, parts = _slices(table, kind)
    cells = []
    for (gpu,), rows in table.groups(("gpu",)):
        kept = rows[inside[rows]]
        code = bucket[kept] * len(parts) + part[kept]
        for value in np.unique(code):
            place, slice_code = divmod(int(value), len(parts))
            cells.append((gpu, buckets[place], parts[slice_code], kept[code == value]))
    return cells


def _slices(table: Table, kind: Kind) -> tuple[Ints, tuple[str, ...]]:
    if "slice" in table.texts:
        return table.texts["slice"]
    if "slice" in table.numbers:
        values, codes = np.unique(table.numbers["slice"], return_inverse=True)
        return codes.astype(np.int64), tuple(f"{value:g}" for value in values)
    return kind.slices(table)


def score(error: Floats) -> Score:
    """Relative errors to a score in percent."""
    if not len(error):
        return Score(0, None, None, None, None)
    absolute = np.abs(error)
    return Score(
        n=len(error),
        mape=_percent(absolute.mean()),
        median=_percent(np.median(absolute)),
        p90=_percent(np.percentile(absolute, 90)),
        bias=_percent(error.mean()),
    )


def _percent(value: Any) -> float | None:
    return round(float(value) * 100, 2) if np.isfinite(value) else None
