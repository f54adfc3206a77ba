"""``moesim cost OP``: one operation priced, with the terms of the sum, whose constants they rest on, and how far.

A priced operation is a table of one row: it takes the same way as the rows of measured tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.costs.collective import OPERATIONS
from moesim.errors import CardError, nearest
from moesim.hardware import Kind as Evidence
from moesim.hardware import load_gpu
from moesim.hardware.fits import Fit, FitKey, find, shipped_fits
from moesim.studies.measured.catalogue import KINDS, STATS
from moesim.studies.measured.kinds import Group, Kind
from moesim.studies.measured.table import Table

#: Operation -> kind of table, and the text columns that it implies.
PRICED: dict[str, tuple[str, dict[str, str]]] = {
    "moe-layer": ("moe_layer", {}),
    "gemm": ("gemm", {}),
    "attention-decode": ("attention_decode", {}),
    "attention-prefill": ("attention_prefill", {}),
    "dispatch": ("moe_all_to_all", {"op": "dispatch"}),
    "combine": ("moe_all_to_all", {"op": "combine"}),
    **{name.replace("_", "-"): ("collectives", {"op": name}) for name in OPERATIONS},
}
_DEFAULT_TEXTS = {"dtype": "bfloat16", "distribution": "balanced", "mode": "low_latency", "impl": "nccl"}


@dataclass(frozen=True)
class Price:
    """What an operation costs.

    Attributes:
        terms: seconds by name; they add up to ``total_s``.
        stack: software stack; ``constants``: ``fitted`` on this GPU, or of the ``class``.
        kind: how well the time is known: ``measured`` only by constants of this GPU inside their fitted range.
        extrapolated: sizes outside of the fitted range, each in words.
        sizes: what the terms were computed from.
    """

    operation: str
    gpu: str
    terms: Mapping[str, float]
    total_s: float
    stack: str
    constants: str
    kind: Evidence
    source: str
    extrapolated: Sequence[str]
    sizes: Mapping[str, float]


def price(
    operation: str,
    gpu: str,
    sizes: Mapping[str, float | str],
    distinct_experts: float | None = None,
    fits: Mapping[FitKey, Fit] | None = None,
) -> Price:
    """Price one operation on a GPU.

    Args:
        operation: a key of :data:`PRICED`.
        gpu: the name of a hardware card.
        sizes: columns of the operation's kind of table (``tokens``, ``hidden``, ...; ``backend``, ``distribution``).
        distinct_experts: of a MoE layer's rank, where known; else they follow from ``distribution``.

    Raises:
        CardError: unknown operation, GPU or size, a size that is missing, or outside of the forms' domain.
    """
    if operation not in PRICED:
        raise CardError.of("", f"unknown operation {operation!r}", nearest(operation, PRICED))
    load_gpu(gpu)
    kind_name, implied = PRICED[operation]
    kind = KINDS[kind_name]
    table = _row(kind, gpu, {**sizes, **implied})
    prepared = kind.prepare(table, _stats(table, distinct_experts))
    if not prepared.groups:
        raise CardError.of("", "outside of the cost forms' domain: " + "; ".join(prepared.outside))
    group = prepared.groups[0]
    found = find(shipped_fits() if fits is None else fits, group.form.operation, group.card, group.stack)
    if found is None:
        raise CardError.of("", f"no fitted constants for {group.form.operation} of {group.stack}")
    return _price(operation, table, group, *found)


def _price(operation: str, table: Table, group: Group, fit: Fit, how: str) -> Price:
    terms = {name: float(np.ravel(value)[0]) for name, value in _terms(group, fit).items()}
    used = {name: float(np.ravel(value)[0]) for name, value in group.work.items()}
    asked = {name: float(values[0]) for name, values in table.numbers.items()} | used
    outside = [
        f"{name} {asked[name]:g} outside of {low:g} to {high:g}"
        for name, (low, high) in fit.fitted_range.items()
        if name in asked and not low <= asked[name] <= high
    ]
    measured: Evidence = fit.kind if how == "fitted" else "datasheet"
    kind: Evidence = "assumed" if outside else measured
    return Price(operation, group.card, terms, sum(terms.values()), group.stack, how, kind, fit.source, outside, used)


def _terms(group: Group, fit: Fit) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return group.form.terms(group.work, group.peaks(), fit.constants)


def _row(kind: Kind, gpu: str, sizes: Mapping[str, float | str]) -> Table:
    given = {**{name: value for name, value in _DEFAULT_TEXTS.items() if name not in sizes}, **sizes, "gpu": gpu}
    numbers = {name: np.array([float(value)]) for name, value in given.items() if not isinstance(value, str)}
    texts = {name: (np.zeros(1, dtype=np.int64), (value,)) for name, value in given.items() if isinstance(value, str)}
    needed = {name for name in kind.columns if name not in ("latency_us", "gpu", "tp", "ep")}
    missing = sorted(needed - set(given))
    if missing:
        raise CardError.of("", f"needs {', '.join(missing)}", "give each size")
    return Table(kind.name, 1, numbers, texts)


def _stats(table: Table, distinct: float | None) -> Table | None:
    """Workload statistics of one row, where the distinct experts are known."""
    if distinct is None:
        return None
    numbers = {name: table.number(name, 1.0) for name in ("tokens", "experts", "topk", "ep")}
    numbers["local_pairs"] = numbers["tokens"] * numbers["topk"] / numbers["ep"]
    numbers["distinct_local_experts"] = np.array([float(distinct)])
    return Table(STATS, 1, numbers, {"distribution": table.texts["distribution"]})
