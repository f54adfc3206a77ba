"""``moesim cost OP``: one operation priced, with the terms of the sum, the constants that they rest on, and how far.

Operations that were measured (:data:`MEASURED`) are a table of one row: they take the same way as the rows of measured
tables. The others (:mod:`moesim.studies.priced_parts`) are parts as runs price them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.costs.collective import OPERATIONS
from moesim.costs.measured import corrected
from moesim.costs.part import Constant, Part
from moesim.errors import CardError, nearest
from moesim.hardware import Kind as Evidence
from moesim.hardware import load_gpu
from moesim.hardware.fits import Fit, FitKey, find, shipped_fits
from moesim.studies.measured.catalogue import KINDS, STATS
from moesim.studies.measured.kinds import Group, Kind
from moesim.studies.measured.table import Table
from moesim.studies.priced_parts import PARTS, Value, check_sizes, price_parts

#: Operation -> kind of table, and the text columns that it implies.
MEASURED: dict[str, tuple[str, dict[str, str]]] = {
    "moe-layer": ("moe_layer", {}),
    "gemm": ("gemm", {}),
    "attention-decode": ("attention_decode", {}),
    "attention-prefill": ("attention_prefill", {}),
    "dispatch": ("moe_all_to_all", {"op": "dispatch"}),
    "combine": ("moe_all_to_all", {"op": "combine"}),
    **{name.replace("_", "-"): ("collectives", {"op": name}) for name in OPERATIONS},
}
#: Kind of table -> columns that a price may leave out, and what they are then.
OPTIONAL: dict[str, dict[str, Value]] = {
    "moe_layer": {
        "backend": "vllm",
        "dtype": "bfloat16",
        "distribution": "balanced",
        "kernel_source": "",
        "tp": 1.0,
        "ep": 1.0,
        "gated": 1.0,
    },
    "gemm": {"backend": "vllm", "dtype": "bfloat16"},
    "attention_decode": {"dtype": "bfloat16", "kv_dtype": "bfloat16", "kernel_source": "", "window": 0.0},
    "attention_prefill": {"dtype": "bfloat16", "kv_dtype": "bfloat16", "kernel_source": "", "window": 0.0},
    "collectives": {"impl": "nccl", "dtype": "half", "nodes": 1.0},
    "moe_all_to_all": {"mode": "low_latency", "gpus": 8.0, "nodes": 1.0, "sms": 20.0},
}
OPERATIONS_PRICED = (*MEASURED, *PARTS)
#: What attention runs on, where no kernel is named.
_ATTENTION_KERNELS = {"attention_decode": "vllm_flash_attn_fa3", "attention_prefill": "vllm_flash_attn_fa3"}


@dataclass(frozen=True)
class Price:
    """What an operation costs.

    Attributes:
        on: the card that it runs on.
        terms: seconds by name; they add up to ``total_s``.
        stack: software stack, or way; ``constants``: ``fitted`` on this GPU, of the ``class``, or of the ``card``.
        kind: how well the time is known: ``measured`` only by constants of this GPU inside their fitted range.
        extrapolated: what lies outside of the fitted range, in words.
        sizes: what the terms were computed from.
        rests_on: the constants themselves.
        notes: what else a reader wants to know.
    """

    operation: str
    on: str
    terms: Mapping[str, float]
    total_s: float
    stack: str
    constants: str
    kind: Evidence
    source: str
    extrapolated: Sequence[str]
    sizes: Mapping[str, Value]
    rests_on: Sequence[Constant]
    notes: Sequence[str] = ()


def price(
    operation: str,
    sizes: Mapping[str, Value],
    distinct_experts: float | None = None,
    fits: Mapping[FitKey, Fit] | None = None,
) -> Price:
    """Price one operation.

    Args:
        operation: one of :data:`OPERATIONS_PRICED`.
        sizes: ``gpu`` and the columns of the operation's kind of table, or what a part needs.
        distinct_experts: of a MoE layer's rank, where known; else they follow from ``distribution``.

    Raises:
        CardError: unknown operation, card or size, a size that is missing, or outside of the forms' domain.
    """
    if operation in PARTS:
        parts, full, notes = price_parts(operation, sizes, fits)
        return _of_parts(operation, parts, full, notes)
    if operation not in MEASURED:
        raise CardError.of("", f"unknown operation {operation!r}", nearest(operation, OPERATIONS_PRICED))
    kind_name, implied = MEASURED[operation]
    kind = KINDS[kind_name]
    table = _row(kind, sizes, implied)
    prepared = kind.prepare(table, _stats(table, distinct_experts))
    if not prepared.groups:
        raise CardError.of("", "outside of the cost forms' domain: " + "; ".join(prepared.outside))
    group = prepared.groups[0]
    found = find(shipped_fits() if fits is None else fits, group.form.operation, group.card, group.stack)
    if found is None:
        raise CardError.of("", f"no fitted constants for {group.form.operation} of {group.stack}")
    return _of_form(operation, table, group, *found)


def _of_form(operation: str, table: Table, group: Group, fit: Fit, how: str) -> Price:
    priced = corrected(group.form.terms(group.work, group.peaks(), fit.constants), fit.profile, group.work)
    terms = {name: float(np.ravel(value)[0]) for name, value in priced.items()}
    used = {name: float(np.ravel(value)[0]) for name, value in group.work.items()}
    asked = {name: float(values[0]) for name, values in table.numbers.items()} | used
    outside = [
        f"{name} {asked[name]:g} outside of {low:g} to {high:g}"
        for name, (low, high) in fit.fitted_range.items()
        if name in asked and not low <= asked[name] <= high
    ]
    if load_gpu(group.card).compute_capability is None:
        outside.append("not an NVIDIA GPU, and the constants are of NVIDIA GPUs")
    measured: Evidence = fit.kind if how == "fitted" else "datasheet"
    units = {constant.name: "s" if constant.unit == "us" else "1" for constant in group.form.constants}
    return Price(
        operation=operation,
        on=group.card,
        terms=terms,
        total_s=sum(terms.values()),
        stack=group.stack,
        constants=how,
        kind="assumed" if outside else measured,
        source=fit.source,
        extrapolated=outside,
        sizes=dict(used),
        rests_on=[Constant(name, value, units[name], fit.source, measured) for name, value in fit.constants.items()],
    )


def _of_parts(operation: str, parts: Sequence[Part], sizes: Mapping[str, Value], notes: Sequence[str]) -> Price:
    """Terms of several parts carry the part's name."""
    terms = {
        name if len(parts) == 1 else f"{part.name}: {name}": float(np.ravel(seconds)[0])
        for part in parts
        for name, seconds in part.terms.items()
    }
    outside = [reason for part in parts if part.extrapolated.any() for reason in part.reasons]
    longest = max(parts, key=lambda part: float(np.ravel(part.seconds)[0]))
    kinds: list[Evidence] = [part.basis.kind for part in parts]
    return Price(
        operation=operation,
        on=str(next(sizes[name] for name in ("gpu", "link", "storage", "cpu") if sizes.get(name))),
        terms=terms,
        total_s=sum(terms.values()),
        stack=longest.basis.stack,
        constants=longest.basis.how,
        kind="assumed" if outside else max(kinds, key=("measured", "published", "datasheet", "assumed").index),
        source=longest.basis.source,
        extrapolated=list(dict.fromkeys(outside)),
        sizes=sizes,
        rests_on=list(dict.fromkeys(constant for part in parts for constant in part.basis.constants)),
        notes=notes,
    )


def _row(kind: Kind, sizes: Mapping[str, Value], implied: Mapping[str, str]) -> Table:
    """A table of one row.

    Raises:
        CardError: a size is missing or unknown, the GPU is unknown, or text stands for a number.
    """
    optional = OPTIONAL[kind.name]
    needed = [name for name in kind.columns if name not in ("latency_us", *implied, *optional)]
    check_sizes(sizes, needed, optional)
    load_gpu(str(sizes["gpu"]))
    given: dict[str, Value] = {**optional, **sizes, **implied}
    if kind.name in _ATTENTION_KERNELS and not given["kernel_source"]:
        given["kernel_source"] = _ATTENTION_KERNELS[kind.name]
    numbers = {name: np.array([float(value)]) for name, value in given.items() if not isinstance(value, str)}
    texts = {name: (np.zeros(1, dtype=np.int64), (value,)) for name, value in given.items() if isinstance(value, str)}
    return Table(kind.name, 1, numbers, texts)


def _stats(table: Table, distinct: float | None) -> Table | None:
    """Workload statistics of one row, where the distinct experts are known."""
    if distinct is None:
        return None
    numbers = {name: table.number(name, 1.0) for name in ("tokens", "experts", "topk", "ep")}
    numbers["local_pairs"] = numbers["tokens"] * numbers["topk"] / numbers["ep"]
    numbers["distinct_local_experts"] = np.array([float(distinct)])
    return Table(STATS, 1, numbers, {"distribution": table.texts["distribution"]})
