"""What importers share: from plain integer arrays to the arrays and the card of a trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moesim.documents import Document, validate
from moesim.errors import TraceError
from moesim.traces.card import MAX_EXPERTS, TraceCard
from moesim.traces.checks import check
from moesim.traces.trace import DECODE, PREFILL, Array, RoutingTrace, expert_dtype, sentinel_of

PhaseName = Literal["prefill", "decode"]
_SPARSE_SIZE, _SPARSE_FACTOR = 2**24, 50
PHASES: Mapping[str, int] = {"prefill": PREFILL, "decode": DECODE}


@dataclass(frozen=True)
class Routing:
    """Routing as importers read it, before it becomes a trace.

    Attributes:
        experts: any integer type [tokens, layers, top_k]; -1 = no expert. A (token, layer) that is all -1 was not
            recorded.
        request, position, phase: integers [tokens].
        weights: any float type, the shape of ``experts``, or None; ignored where there is no expert.
        more: further columns of :class:`RoutingTrace`, already of the right type.
    """

    experts: Array
    request: Array
    position: Array
    phase: Array
    weights: Array | None = None
    more: Mapping[str, Any] | None = None


def imported_trace(routing: Routing, place: str, num_experts: int, **card: Any) -> RoutingTrace:
    """A checked trace of origin "imported", out of arrays; ``card`` holds further fields of :class:`TraceCard`.

    The MoE layers are numbered from 0 unless the card says otherwise.

    Raises:
        TraceError: a wrong shape, an expert id that is not in [-1, num_experts), or any fault of ``checks.check``.
    """
    experts = routing.experts
    if experts.ndim != 3 or 0 in experts.shape:
        told = f"must be [tokens, layers, top_k], none of them 0 (got {list(experts.shape)})"
        raise TraceError.of(f"{place}: experts", told)
    if not 1 <= num_experts <= MAX_EXPERTS:
        raise TraceError.of(place, f"num_experts must be from 1 to {MAX_EXPERTS} (got {num_experts})")
    ids, absent = _ids(experts, place, num_experts)
    silent = absent.all(axis=-1)
    shape = {"num_experts": num_experts, "top_k": experts.shape[2], "moe_layer_indices": list(range(experts.shape[1]))}
    trace = RoutingTrace(
        card=validate(Document(f"{place}: card", {**shape, "origin": "imported", **card}), TraceCard, TraceError),
        experts=ids,
        request=_column(routing.request, "request", place, np.int32),
        position=_column(routing.position, "position", place, np.int32),
        phase=_column(routing.phase, "phase", place, np.uint8),
        weights=None if routing.weights is None else _weights(routing.weights, absent, place),
        recorded=np.asarray(~silent) if silent.any() else None,
        **(routing.more or {}),
    )
    return check(trace, place)


def numbered(key: Array) -> tuple[Array, Array]:
    """The distinct keys, ascending, and each line's index into them. Lines of one key mostly stand together. [lines]"""
    start = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1])
    distinct, which = np.unique(key[start], return_inverse=True)
    return distinct, np.repeat(which, np.diff(start, append=len(key)))


def refuse_sparse(shape: tuple[int, ...], activations: int, place: str) -> None:
    """Don't build arrays that are far larger than what a file says.

    Raises:
        TraceError: the file is about few of the tokens, layers and slots that it names.
    """
    if math.prod(shape) > _SPARSE_SIZE and math.prod(shape) > _SPARSE_FACTOR * activations:
        told = f"has {activations} activations for {shape[0]} tokens x {shape[1]} layers x {shape[2]} slots"
        raise TraceError.of(place, told, "nearly all of the trace would be empty; are its numbers right?")


def _ids(experts: Array, place: str, num_experts: int) -> tuple[Array, Array]:
    """Expert ids in the trace's type, and which slots hold none."""
    absent = experts == -1
    wrong = ~absent & ((experts < 0) | (experts >= num_experts))
    if wrong.any():
        index = [int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape)]
        told = f"{experts[tuple(index)]} is no expert: ids run from 0 to {num_experts - 1}, -1 means none"
        raise TraceError.of(f"{place}: experts{index}", told, "is num_experts right?")
    dtype = expert_dtype(num_experts)
    ids = experts.astype(dtype)
    ids[absent] = sentinel_of(dtype)
    return ids, absent


def _column(values: Array, name: str, place: str, dtype: Any) -> Array:
    bounds = np.iinfo(dtype)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise TraceError.of(f"{place}: {name}", f"must be integers [tokens] (got {values.dtype} {list(values.shape)})")
    if len(values) and not (bounds.min <= values.min() and values.max() <= bounds.max):
        raise TraceError.of(f"{place}: {name}", f"holds a number that doesn't fit {bounds.dtype}")
    return values.astype(dtype)


def _weights(weights: Array, absent: Array, place: str) -> Array:
    if weights.dtype.kind != "f" or weights.shape != absent.shape:
        told = f"must be floats of the shape of experts (got {weights.dtype} {list(weights.shape)})"
        raise TraceError.of(f"{place}: weights", told)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and `check` tells where it stands
        half = weights.astype(np.float16)
    half[absent] = 0
    return half
