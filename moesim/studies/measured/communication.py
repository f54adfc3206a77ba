"""The tables ``collectives`` and ``moe_all_to_all`` as work of their forms."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.costs import collective, dispatch
from moesim.costs.collective import OPERATIONS, bus_bytes
from moesim.costs.fitted import Floats
from moesim.studies.measured.kinds import Group, Kind, Prepared, by_limit, by_tokens, card_of, card_peaks, positive
from moesim.studies.measured.table import Ints, Table

_SIZES = ((65536.0, "<=64KB"), (4194304.0, "<=4MB"))
_GPUS_IN_NODE = 8.0


def library(impl: str) -> str:
    """The library behind an ``impl``: ``nccl`` (nccl-tests), ``torch`` (NCCL called from torch), or its own name."""
    if impl.startswith("nccl"):
        return "nccl"
    if impl.startswith("torch"):
        return "torch"
    return re.sub(r"_\d+(\.\d+)*(rc\d+)?", "", impl) or "nccl"


def prepare_collectives(table: Table, _stats: Table | None) -> Prepared:
    """The rows of ``collectives`` by GPU, and library, operation and level as the stack."""
    prepared = Prepared()
    gpus, nodes = table.number("gpus"), table.number("nodes", 1.0)
    usable = positive(table, ("bytes",), prepared)
    alone = usable & ~(gpus >= 2)
    prepared.leave_out("gpus missing or below two", int(alone.sum()))
    usable &= ~alone
    for (gpu, impl, operation, dtype), every in table.groups(("gpu", "impl", "op", "dtype")):
        rows, card = every[usable[every]], card_of(gpu)
        if card is None or card_peaks(card, "bf16").link_bytes_per_s <= 0:
            prepared.leave_out(f"gpu {gpu}: no card with a link between GPUs", len(rows))
            continue
        if operation not in OPERATIONS:
            prepared.leave_out(f"op {operation}", len(rows))
            continue
        prepared.leave_out("more than one node", int((nodes[rows] > 1).sum()))
        rows = rows[nodes[rows] <= 1]
        bridged = "pairwise" in gpu
        for level, inside in ((", bridge" if bridged else "", True), (", across pairs", False)):
            chosen = rows[(gpus[rows] <= 2) | (not bridged) if inside else (gpus[rows] > 2) & bridged]
            if len(chosen):
                stack = f"{library(impl)} {operation}{level}"
                prepared.groups.append(_collective(table, chosen, gpu, card, stack, operation, dtype))
    prepared.groups = _merged(prepared.groups)
    return prepared


def _collective(table: Table, rows: Ints, gpu: str, card: str, stack: str, operation: str, dtype: str) -> Group:
    gpus = table.number("gpus")[rows]
    int8 = dtype == "int8" and operation in ("all_reduce", "reduce_scatter")
    work = {
        "bus_bytes": bus_bytes(operation, table.number("bytes")[rows], gpus),
        "gpus": gpus,
        "int8_reduction": np.full(len(rows), float(int8)),
    }
    return Group(collective.FORM, gpu, card, stack, rows, work)


def _merged(groups: list[Group]) -> list[Group]:
    """Groups of the same GPU and stack (they differ in dtype or release) as one."""
    together: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        together.setdefault((group.gpu, group.stack), []).append(group)
    merged = []
    for parts in together.values():
        rows = np.concatenate([part.rows for part in parts])
        work = {name: np.concatenate([part.work[name] for part in parts]) for name in parts[0].work}
        first = parts[0]
        naive = {"bytes over the raw link": partial(collective.naive_seconds, work)}
        merged.append(Group(first.form, first.gpu, first.card, first.stack, rows, work, naive))
    return merged


def prepare_dispatch(table: Table, _stats: Table | None) -> Prepared:
    """The rows of ``moe_all_to_all`` by GPU, and mode and operation as the stack."""
    prepared = Prepared()
    nodes = table.number("nodes", 1.0)
    usable = positive(table, ("hidden", "tokens", "topk", "experts"), prepared)
    for (gpu, mode, operation), every in table.groups(("gpu", "mode", "op")):
        rows, card = every[usable[every]], card_of(gpu)
        if card is None or card_peaks(card, "bf16").link_bytes_per_s <= 0:
            prepared.leave_out(f"gpu {gpu}: no card with a link between GPUs", len(rows))
        elif mode not in ("normal", "low_latency") or operation not in ("dispatch", "combine"):
            prepared.leave_out(f"mode {mode}, op {operation}", len(rows))
        else:
            prepared.leave_out("more than one node", int((nodes[rows] > 1).sum()))
            inside = rows[nodes[rows] <= 1]
            form = dispatch.NORMAL if mode == "normal" else dispatch.LOW_LATENCY
            work = _dispatch_work(table, inside, mode, operation)
            naive = {"bytes over the raw link": partial(dispatch.naive_seconds, work)}
            prepared.groups.append(Group(form, gpu, card, f"{mode} {operation}", inside, work, naive))
    return prepared


def _dispatch_work(table: Table, rows: Ints, mode: str, operation: str) -> dict[str, Floats]:
    work = {name: table.number(name)[rows] for name in ("tokens", "hidden", "topk", "experts")}
    work["gpus"] = table.number("gpus", _GPUS_IN_NODE)[rows]
    work["sms"] = table.number("sms", dispatch.DEFAULT_SMS)[rows]
    work["reached"] = dispatch.gpus_reached(work["experts"], work["topk"], work["gpus"])
    narrow = mode == "low_latency" and operation == "dispatch"
    work["value_bytes"] = np.full(len(rows), 1.0 if narrow else 2.0)
    return work


def _modes(table: Table) -> tuple[Ints, tuple[str, ...]]:
    codes, names = table.texts["mode"]
    return codes, names


def _measurers(table: Table) -> tuple[Ints, tuple[str, ...]]:
    """Slices by who measured what: nccl-tests, NCCL called from torch, custom all-reduces."""
    if "impl" not in table.texts:
        return np.zeros(table.size, dtype=np.int64), ("nccl",)
    names = ("nccl", "torch nccl", "custom all-reduce")
    codes, impls = table.texts["impl"]
    place = {"nccl": 0, "torch": 1}
    of_impl = np.array([place.get(library(impl), 2) for impl in impls], dtype=np.int64)
    return of_impl[codes], names


def _one_node(table: Table) -> NDArray[np.bool_]:
    return table.number("nodes", 1.0) <= 1


COLLECTIVES = Kind(
    name="collectives",
    columns=("gpu", "op", "gpus", "bytes", "latency_us"),
    prepare=prepare_collectives,
    shapes=("bytes",),
    fits=_one_node,
    bucket_key="bytes",
    buckets=lambda table: by_limit(table.number("bytes"), _SIZES, ">4MB"),
    slices=_measurers,
    range_columns=("gpus", "bus_bytes"),
)
ALL_TO_ALL = Kind(
    name="moe_all_to_all",
    columns=("gpu", "mode", "op", "hidden", "tokens", "topk", "experts", "latency_us"),
    prepare=prepare_dispatch,
    shapes=("hidden", "topk", "experts"),
    fits=_one_node,
    bucket_key="tokens",
    buckets=lambda table: by_tokens(table.number("tokens")),
    slices=_modes,
    range_columns=("tokens", "hidden", "topk", "experts", "gpus"),
)
