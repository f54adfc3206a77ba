"""What ``moesim bench`` reports: one row for each figure, with what it must reach and what it aims at."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal

from moesim.results.result import write_text
from moesim.version import __version__

#: "x" is how many times faster; of the others less is better.
Unit = Literal["x", "x the time", "CPU s", "MiB", "%"]
Verdict = Literal["aim reached", "must reached", "missed", "not measured", "–"]


@dataclass(frozen=True)
class BenchRow:
    """One figure.

    Attributes:
        stream: what was replayed.
        what: the policy, with what else there is to say.
        against: what was measured in the same run, for a ratio.
        value, low, high: the median over the rounds and its range; None where it could not be measured.
        rate: activations per CPU second of ours.
        must, aim: what the value has to reach, and what would be good.
        same_hits: whether both counted the same hits.
        note: why there is no value, or what else is to know.
    """

    part: str
    stream: str
    what: str
    against: str
    value: float | None
    unit: Unit
    low: float | None = None
    high: float | None = None
    rate: float | None = None
    must: float | None = None
    aim: float | None = None
    same_hits: bool | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        part: str,
        stream: str,
        what: str,
        values: Sequence[float],
        unit: Unit,
        *,
        against: str = "",
        rate: float | None = None,
        targets: tuple[float, float | None] | None = None,
        same_hits: bool | None = None,
        note: str = "",
    ) -> BenchRow:
        """A row from the values of all rounds (none: not measured) and the (must, aim) that they have to reach."""
        must, aim = targets or (None, None)
        value, low, high = (median(values), min(values), max(values)) if values else (None, None, None)
        return cls(part, stream, what, against, value, unit, low, high, rate, must, aim, same_hits, note)

    @property
    def verdict(self) -> Verdict:
        """How the value stands to its targets; other hits are a miss, however fast."""
        if self.value is None:
            return "not measured"
        if self.must is None:
            return "–"
        if not self._reaches(self.must) or self.same_hits is False:
            return "missed"
        return "aim reached" if self.aim is not None and self._reaches(self.aim) else "must reached"

    def _reaches(self, target: float) -> bool:
        assert self.value is not None
        return self.value >= target if self.unit == "x" else self.value <= target

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return asdict(self) | {"verdict": self.verdict}

    def cells(self) -> list[str]:
        """The row as a reader sees it, in the order of ``COLUMNS``."""
        return [
            self.part,
            self.stream,
            self.what,
            self.against,
            "–" if self.rate is None else f"{self.rate / 1e6:.1f} M/s",
            "–" if self.value is None else _number(self.value, self.unit),
            "–" if self.low is None or self.high is None else f"{_plain(self.low)} … {_plain(self.high)}",
            _target(self.must, self.unit),
            _target(self.aim, self.unit),
            self.verdict,
            {None: "–", True: "yes", False: "NO"}[self.same_hits],
            self.note,
        ]


COLUMNS = [
    "part",
    "stream",
    "what",
    "against",
    "rate",
    "value",
    "range",
    "must",
    "aim",
    "verdict",
    "hits equal",
    "note",
]


def _plain(value: float) -> str:
    if 0 < value < 0.095:
        return f"{value:.2g}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _number(value: float, unit: Unit) -> str:
    return f"{_plain(value)}{unit}" if unit.startswith("x") else f"{_plain(value)} {unit}"


def _target(value: float | None, unit: Unit) -> str:
    if value is None:
        return "–"
    return f"{'≥' if unit == 'x' else '≤'} {value:g}{'' if unit.startswith('x') else ' '}{unit}"


def machine_facts() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "moesim": __version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version_of(name) for name in ("numba", "numpy", "simpy", "libcachesim")},
        "load_average_1_min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def to_json(rows: Sequence[BenchRow], machine: dict[str, Any]) -> str:
    """Everything, for machines."""
    document = {"schema_version": 1, "machine": machine, "rows": [row.to_dict() for row in rows]}
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def to_markdown(rows: Sequence[BenchRow], machine: dict[str, Any], parts: Sequence[str]) -> str:
    """Everything, for readers; misses and what was not measured come first."""
    open_rows = [row for row in rows if row.verdict in ("missed", "not measured")]
    reached = sum(row.verdict == "aim reached" for row in rows)
    judged = sum(row.must is not None for row in rows)
    lines = [
        "# How fast the compiled replay is",
        "",
        f"{judged} figures have a target: {reached} reach the aim, {judged - reached - len(open_rows)} the must, "
        f"{len(open_rows)} neither or could not be measured. Made by `moesim bench {' '.join(parts)} --out DIR`.",
        "",
        "Times are CPU time. Contenders take turns in one process; a ratio is the median over the rounds, its range "
        "stands beside it. Streams are synthetic and seeded: `mix` is 32 layers of 8 experts, top 2; `ds` is 58 of "
        "256, top 8; a little more than 20 million activations each.",
        "",
        *(f"- {'missed' if row.verdict == 'missed' else 'not measured'}: {_told(row)}" for row in open_rows),
        *([""] if open_rows else []),
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
        "",
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items()),
        "",
    ]
    return "\n".join(lines)


def _told(row: BenchRow) -> str:
    value = "" if row.value is None else f", {_number(row.value, row.unit)} for {_target(row.must, row.unit)}"
    note = f" ({row.note})" if row.note else ""
    against = f" against {row.against}" if row.against else ""
    return f"{row.part}, {row.stream}, {row.what}{against}{value}{note}"


def write_report(rows: Sequence[BenchRow], machine: dict[str, Any], parts: Sequence[str], folder: Path) -> list[Path]:
    """``bench.json`` and ``bench.md``."""
    texts = {"bench.json": to_json(rows, machine), "bench.md": to_markdown(rows, machine, parts)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
