"""The saved result of a sweep: every point's settings and figures as flat columns, or why it did not run."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moesim.results.result import SCHEMA_VERSION, load_versioned

Value = bool | int | float | str | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SweepRow(_Part):
    """One point. ``key`` finds its whole result in the store."""

    settings: dict[str, Any]
    status: Literal["ok", "failed"]
    figures: dict[str, Value] = Field(description="headline, limit and evidence by dotted name; empty where it failed")
    message: str = Field(description="why it failed, else empty")
    key: str


class SweepResult(_Part):
    """Everything that a sweep found, in the order of its points."""

    schema_version: str = SCHEMA_VERSION
    kind: Literal["sweep"] = "sweep"
    moesim_version: str
    question: str
    sweep: dict[str, Any]
    base_scenario: dict[str, Any]
    rows: list[SweepRow]
    warnings: list[str]

    def to_json(self) -> str:
        """The bytes that are saved."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def columns(self) -> dict[str, list[Value]]:
        """Flat columns of equal length, one type each: what a table or a Parquet file takes. Settings come first."""
        settings = dict.fromkeys(key for row in self.rows for key in row.settings)
        figures = dict.fromkeys(key for row in self.rows for key in row.figures)
        table: dict[str, list[Value]] = {key: [plain(row.settings.get(key)) for row in self.rows] for key in settings}
        table["status"] = [row.status for row in self.rows]
        table |= {key: [row.figures.get(key) for row in self.rows] for key in figures if key not in table}
        table["message"] = [row.message for row in self.rows]
        table["key"] = [row.key for row in self.rows]
        return {name: one_type(values) for name, values in table.items()}

    def to_csv(self) -> str:
        """One line for each point."""
        text, columns = io.StringIO(), self.columns()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        return text.getvalue()


def plain(value: Any) -> Value:
    """A setting as one cell: what is no single value becomes JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def one_type(values: list[Value]) -> list[Value]:
    """Numbers as floats where some are, and text where types are mixed otherwise."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    return values


def load_sweep_result(path: Path) -> SweepResult:
    """Read a saved sweep; errors as :func:`moesim.results.load_result`."""
    return load_versioned(path, SweepResult)
