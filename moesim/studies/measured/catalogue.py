"""The kinds of tables, and the forms, by name."""

from __future__ import annotations

from pathlib import Path

from moesim.costs import attention, collective, dispatch, gemm, moe_layer
from moesim.costs.fitted import Form
from moesim.errors import FileError, nearest
from moesim.studies.measured.activated import MOE_ACTIVATED
from moesim.studies.measured.communication import ALL_TO_ALL, COLLECTIVES
from moesim.studies.measured.kernels import DECODE, GEMM, PREFILL
from moesim.studies.measured.kinds import Kind
from moesim.studies.measured.moe import MOE_LAYER
from moesim.studies.measured.table import Table, read_table

FORMS: dict[str, Form] = {
    form.operation: form
    for form in (
        moe_layer.FORM,
        gemm.FORM,
        attention.DECODE,
        attention.PREFILL,
        collective.FORM,
        dispatch.NORMAL,
        dispatch.LOW_LATENCY,
    )
}
KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (MOE_LAYER, MOE_ACTIVATED, GEMM, COLLECTIVES, ALL_TO_ALL, DECODE, PREFILL)
}
STATS = "moe_workload_stats.parquet"


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        FileError: no such kind; the hint names the nearest.
    """
    if name not in KINDS:
        raise FileError.of("--table", f"unknown kind of table {name!r}", nearest(name, KINDS))
    return KINDS[name]


def read_measured(path: Path, kind: Kind) -> Table:
    """A table of that kind.

    Raises:
        FileError: see :func:`moesim.studies.measured.table.read_table`.
    """
    return read_table(path, kind.columns)


def read_stats(path: Path | None, table: Path) -> Table | None:
    """Workload statistics: the file given, else ``moe_workload_stats.parquet`` beside the table, else None."""
    beside = table.parent / STATS
    if path is None and not beside.is_file():
        return None
    return read_table(beside if path is None else path, ("tokens", "experts", "topk", "ep", "distribution"))
