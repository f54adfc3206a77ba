"""The report ``reports/validation/costs``: how far the cost forms are from measurements that they were not fitted to.

``moesim validate costs`` writes ``costs.md`` and ``costs.json`` from the tables of measurements; both hold scores
only, never a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moesim.costs.moe_layer import uniform_distinct
from moesim.results.result import write_text
from moesim.studies.cross_validation import cross_validate
from moesim.studies.measured.catalogue import KINDS, read_measured, read_stats
from moesim.studies.measured.kinds import Kind
from moesim.studies.measured.table import Table
from moesim.studies.validate_measured import Validation, predict, score_table

_BF16 = "bfloat16 tp*ep<=8"
#: What issue "costs that match measurements" asks: kind, way, size class, slice -> (must, aim) in percent.
TARGETS: dict[tuple[str, str, str, str], tuple[float, float]] = {
    ("moe_layer", "shapes", "<=128", _BF16): (12, 8),
    ("moe_layer", "shapes", ">128", _BF16): (15, 11),
    ("moe_layer", "models", "<=128", _BF16): (12, 8),
    ("moe_layer", "models", ">128", _BF16): (15, 11),
    ("moe_layer", "gpus", "<=128", _BF16): (18, 13),
    ("moe_layer", "gpus", ">128", _BF16): (18, 13),
    ("gemm", "shapes", "<=128", ""): (20, 12),
    ("gemm", "shapes", ">128", ""): (18, 12),
    ("collectives", "shapes", "<=64KB", "nccl"): (10, 6),
    ("collectives", "shapes", "<=4MB", "nccl"): (15, 12),
    ("collectives", "shapes", ">4MB", "nccl"): (12, 8),
    ("moe_all_to_all", "shapes", "<=128", "normal"): (12, 7),
    ("moe_all_to_all", "shapes", "<=128", "low_latency"): (15, 10),
}
#: Attention is judged by the median of all rows.
MEDIAN_TARGET = (25.0, 15.0)
SECTIONS = (
    ("moe_layer", "shapes", "MoE layer, without the row's shape (model and parallel degrees)"),
    ("moe_layer", "models", "MoE layer, without the row's model"),
    ("moe_layer", "gpus", "MoE layer, without the row's GPU: datasheet and class constants"),
    ("gemm", "shapes", "GEMM, without the row's n and k"),
    ("gemm", "gpus", "GEMM, without the row's GPU: datasheet and class constants"),
    ("collectives", "shapes", "Collectives, without the row's size"),
    ("collectives", "gpus", "Collectives, without the row's GPU: datasheet and class constants"),
    ("moe_all_to_all", "shapes", "DeepEP dispatch and combine, without the row's hidden size, top-k and experts"),
    ("moe_all_to_all", "gpus", "DeepEP dispatch and combine, without the row's GPU: datasheet and class constants"),
    ("attention_decode", "shapes", "Attention decode, without the row's heads, head size and window"),
    ("attention_decode", "gpus", "Attention decode, without the row's GPU: datasheet and class constants"),
    ("attention_prefill", "shapes", "Attention prefill, without the row's heads, head size and window"),
    ("attention_prefill", "gpus", "Attention prefill, without the row's GPU: datasheet and class constants"),
)
_FEW_TOKENS = 16


@dataclass(frozen=True)
class Section:
    """A cross-validation and what it leaves out."""

    title: str
    way: str
    validation: Validation


def write_cost_report(data: Path, folder: Path, progress: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Cross-validate every kind of table below ``data`` and write the report; returns the files.

    Raises:
        FileError: a table is missing or wrong.
    """
    sections = []
    for name, way, title in SECTIONS:
        progress(f"{name}, {way}")
        table, stats = _read(data, name)
        sections.append(Section(title, way, cross_validate(table, KINDS[name], stats, way)))
    progress("distinct experts")
    distinct = distinct_experts(*_read(data, "moe_layer"))
    paths = [folder / "costs.json", folder / "costs.md"]
    content = {
        "sections": [
            {"title": section.title, "without_its": section.way, **section.validation.as_json()} for section in sections
        ],
        "distinct_experts": distinct,
    }
    write_text(paths[0], json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text(paths[1], "\n".join(_markdown(sections, distinct)) + "\n")
    return paths


def _read(data: Path, name: str) -> tuple[Table, Table | None]:
    path = data / f"{name}.parquet"
    return read_measured(path, KINDS[name]), read_stats(None, path)


def distinct_experts(table: Table, stats: Table | None) -> list[dict[str, Any]]:
    """MAPE of the same form with the distinct, the uniformly expected and all experts, at 1 to 16 tokens, per GPU."""
    kind = KINDS["moe_layer"]
    table = table.rows(kind.fits(table) & (table.number("tokens") <= _FEW_TOKENS))
    found: dict[str, dict[str, Any]] = {}
    for name, change in (("distinct", None), ("uniform", uniform_distinct), ("all", _all_experts)):
        prediction = predict(table, _with_distinct(kind, change), stats)
        for cell in (cell for cell in score_table(table, kind, prediction).cells if cell.slice == _BF16):
            row = found.setdefault(cell.gpu, {"gpu": cell.gpu, "n": cell.score.n})
            row[f"{name}_mape"] = cell.score.mape
    return list(found.values())


def _all_experts(work: Mapping[str, Any]) -> Any:
    return work["local_experts"]


def _with_distinct(kind: Kind, change: Callable[[Mapping[str, Any]], Any] | None) -> Kind:
    if change is None:
        return kind

    def prepare(table: Table, stats: Table | None) -> Any:
        prepared = kind.prepare(table, stats)
        prepared.groups = [
            replace(group, work={**group.work, "distinct": change(group.work)}) for group in prepared.groups
        ]
        return prepared

    return replace(kind, prepare=prepare)


def _markdown(sections: Sequence[Section], distinct: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _HEAD
    yield from _targets(sections)
    yield ""
    yield "## The distinct-experts term, 1 to 16 tokens"
    yield ""
    yield "The same fitted form with the bytes of the experts that were chosen, of those that uniform routing would"
    yield "choose, and of all experts of the rank. MAPE; table `moe_layer`, bf16, tp*ep <= 8, rows that were fitted."
    yield ""
    yield from _rows(("GPU", "n", "distinct", "uniform", "all"), [_distinct_row(row) for row in distinct])
    for section in sections:
        yield ""
        yield f"## {section.title}"
        yield ""
        yield f"Table `{section.validation.table}`. {_outside(section.validation)}"
        yield ""
        yield from validation_lines(section.validation)


_HEAD = (
    "# Cost forms against measurements",
    "",
    "Every row below was predicted with constants fitted **without its like**: without its shape, its model or its GPU",
    "(see each heading). Errors are in percent of the measured time: mean of the absolute (MAPE), median, 90th",
    "percentile, mean (bias). Tables measured by others (ai-dynamo/aiconfigurator, Apache-2.0; NCCL from torch: vidur,",
    "MIT); they are not part of the repository, and no row of them is kept. Regenerate with `moesim validate costs`;",
    "the same numbers stand in `costs.json`.",
    "",
    "The same GPU and shape measured with another software version differs by 8 to 10 %; attention by 18 to 38 %.",
    "",
    "## Targets",
    "",
)


def _targets(sections: Sequence[Section]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    for section in sections:
        table = section.validation.table
        for cell in section.validation.cells:
            key = (table, section.way, cell.bucket)
            target = TARGETS.get((*key, "")) or TARGETS.get((*key, cell.slice))
            if target is not None and cell.score.mape is not None:
                where = f"{cell.bucket} {cell.slice}"
                rows.append(
                    (f"{table}, without its {section.way}", cell.gpu, where, *_verdict(cell.score.mape, target))
                )
        if table.startswith("attention") and section.way == "shapes":
            rows.append((table, "all", "median", *_verdict(section.validation.overall.median or 0.0, MEDIAN_TARGET)))
    yield from _rows(("what", "GPU", "rows", "found", "must", "aim", "reaches"), rows)


def _verdict(found: float, target: tuple[float, float]) -> tuple[str, ...]:
    must, aim = target
    reached = "aim" if found <= aim else "must" if found <= must else "**missed**"
    return (*_numbers(found, must, aim), reached)


def _numbers(*values: float | None) -> tuple[str, ...]:
    return tuple("" if value is None else f"{value:.1f}" for value in values)


def _distinct_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["gpu"], str(row["n"]), *_numbers(row["distinct_mape"], row["uniform_mape"], row["all_mape"]))


def _outside(validation: Validation) -> str:
    if not validation.outside:
        return "No row lies outside of the form's domain."
    return "Outside of the form's domain: " + ", ".join(f"{n} rows ({why})" for why, n in validation.outside.items())


def validation_lines(validation: Validation) -> Iterator[str]:
    """A validation as a Markdown table, one line for each cell."""
    others = sorted({name for cell in validation.cells for name in cell.naive})
    head = ("GPU", validation.bucket_key, "slice", "n", "MAPE", "median", "p90", "bias", *others)
    rows = []
    for cell in validation.cells:
        scores = (cell.score.mape, cell.score.median, cell.score.p90, cell.score.bias)
        numbers = _numbers(*scores, *(cell.naive.get(name) for name in others))
        rows.append((cell.gpu, cell.bucket, cell.slice, str(cell.score.n), *numbers))
    yield from _rows(head, rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if place < 1 else "---:" for place in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
