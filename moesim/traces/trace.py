"""A routing trace in memory: which experts each token used in each MoE layer."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from moesim.errors import Fault, TraceError
from moesim.traces.card import TraceCard

FORMAT = "moesim-trace/1"
PREFILL, DECODE = 0, 1
_CHUNK_BYTES = 2**24

Array = np.ndarray[Any, Any]


def expert_dtype(num_experts: int) -> np.dtype[Any]:
    """The type of expert ids: uint8 up to 255 experts, else uint16, so that the largest value is free."""
    return np.dtype(np.uint8 if num_experts <= 255 else np.uint16)


def sentinel_of(dtype: np.dtype[Any]) -> int:
    """The value that means "no expert here" in an array of expert ids."""
    return int(np.iinfo(dtype).max)


def row_chunks(num_rows: int, bytes_per_row: int) -> Iterator[tuple[int, int]]:
    """Row ranges ``(start, stop)`` of about 16 MiB each, to work through arrays that don't fit in memory."""
    rows = max(1, _CHUNK_BYTES // max(1, bytes_per_row))
    for start in range(0, num_rows, rows):
        yield start, min(start + rows, num_rows)


def forget(array: Array) -> None:
    """Let go of the pages of a memory map that were read; they come back from its file when they are read again."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False, repr=False)
class RoutingTrace:
    """The routing of a set of requests, one row per token, rows request-major, positions ascending.

    Every array is made read-only; shapes and types are checked here, contents by :func:`moesim.traces.checks.check`.

    Attributes:
        card: what the trace says about itself.
        experts: [tokens, moe_layers, top_k], uint8 up to 255 experts, else uint16; ``sentinel`` = no expert here.
            The order within a token is the recorded one.
        request: int32 [tokens], the request that the token belongs to; ids need not be dense.
        position: int32 [tokens], the token's index in its request's context.
        phase: uint8 [tokens], 0 prefill, 1 decode.
        weights: float16, the shape of ``experts``: the gate weight of each expert; 0 where there is none.
        lookahead: distance d -> the shape of ``experts``: at layer l the experts that were predicted there for layer
            l + d; ``sentinel`` where there is no prediction.
        recorded: bool [tokens, moe_layers], False where the source did not record; None: all was recorded.
        step: int32 [tokens], which tokens ran together in one forward pass.
        domain: integer [tokens], index into ``card.domains``; -1 = unknown.
        token_id: int32 [tokens], the vocabulary id of the token.

    Raises:
        TraceError: an array with a wrong shape or type.
    """

    card: TraceCard
    experts: Array
    request: Array
    position: Array
    phase: Array
    weights: Array | None = None
    lookahead: Mapping[int, Array] = field(default_factory=dict)
    recorded: Array | None = None
    step: Array | None = None
    domain: Array | None = None
    token_id: Array | None = None

    def __post_init__(self) -> None:
        faults = list(_shape_faults(self))
        if faults:
            raise TraceError(faults)
        for name in ("experts", "request", "position", "phase", *OPTIONAL_COLUMNS):
            if (array := getattr(self, name)) is not None:
                object.__setattr__(self, name, _read_only(array))
        object.__setattr__(self, "lookahead", {d: _read_only(self.lookahead[d]) for d in sorted(self.lookahead)})

    def __repr__(self) -> str:
        shape = f"{self.num_tokens} tokens x {self.num_layers} layers x top-{self.top_k} of {self.num_experts}"
        return f"<RoutingTrace {self.card.name!r}, {self.card.origin}: {shape}>"

    @property
    def num_tokens(self) -> int:
        """Rows of the trace."""
        return int(self.experts.shape[0])

    @property
    def num_layers(self) -> int:
        """MoE layers of the trace."""
        return int(self.experts.shape[1])

    @property
    def top_k(self) -> int:
        """Experts per token and layer, where none is missing."""
        return int(self.experts.shape[2])

    @property
    def num_experts(self) -> int:
        """Routed experts per layer."""
        return self.card.num_experts

    @property
    def sentinel(self) -> int:
        """The value that means "no expert here"."""
        return sentinel_of(self.experts.dtype)

    def columns(self) -> dict[str, Array]:
        """Every array that is there but the lookahead channels, by its attribute's name, in a fixed order."""
        found = {name: getattr(self, name) for name in ("experts", "request", "position", "phase", *OPTIONAL_COLUMNS)}
        return {name: array for name, array in found.items() if array is not None}

    def arrays(self) -> dict[str, Array]:
        """Every array that is there, by the name that it has in a file, in the order in which they are hashed."""
        return self.columns() | {f"lookahead_{distance}": array for distance, array in self.lookahead.items()}

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the format's name and of each array's name, type, shape and bytes; the card has no part."""
        digest = hashlib.sha256(f"{FORMAT}\n".encode())
        for name, array in self.arrays().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            for start, stop in row_chunks(len(array), array[:1].nbytes):
                digest.update(np.ascontiguousarray(array[start:stop]).data)
                forget(array)
        return digest.hexdigest()

    @cached_property
    def _starts(self) -> Array:
        """First row of each request, and the number of rows at the end: int64 [requests + 1]."""
        request, starts = self.request, [np.zeros(1, np.int64)]
        for start, stop in row_chunks(self.num_tokens - 1, request.itemsize):
            starts.append(start + 1 + np.flatnonzero(request[start:stop] != request[start + 1 : stop + 1]))
        return np.concatenate([*starts, [self.num_tokens]])

    @cached_property
    def request_ids(self) -> Array:
        """int32 [requests], in the order of their first rows."""
        return np.asarray(self.request[self._starts[:-1]])

    @cached_property
    def _row_slices(self) -> dict[int, slice]:
        starts = self._starts.tolist()
        spans = zip(self.request_ids.tolist(), starts, starts[1:], strict=False)
        return {request: slice(start, stop) for request, start, stop in spans}

    def rows_of(self, request: int) -> slice:
        """The rows of one request.

        Raises:
            TraceError: no such request.
        """
        if request not in self._row_slices:
            raise TraceError.of(self.card.name, f"has no request {request}", f"it has {len(self._row_slices)} requests")
        return self._row_slices[request]


#: The columns that a trace may do without, besides the lookahead channels, with the kinds of type that each may have.
OPTIONAL_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "weights": ("<f2",),
    "recorded": ("|b1",),
    "step": ("<i4",),
    "domain": ("|i1", "<i2", "<i4"),
    "token_id": ("<i4",),
}


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _shape_faults(trace: RoutingTrace) -> Iterator[Fault]:
    card = trace.card
    experts = np.asarray(trace.experts)
    if experts.ndim != 3:
        yield Fault("experts", f"must be [tokens, moe_layers, top_k] (got shape {list(experts.shape)})")
        return
    tokens, layers = experts.shape[:2]
    if tokens == 0:
        yield Fault("experts", "holds no tokens", "a trace needs at least one")
    declared = (len(card.moe_layer_indices), card.top_k)
    if experts.shape[1:] != declared:
        told = f"has {layers} layers x top-{experts.shape[2]}, the card says {declared[0]} x top-{declared[1]}"
        yield Fault("experts", told, "the card's moe_layer_indices and top_k must fit the arrays")
    ids = (expert_dtype(card.num_experts).str,)
    row, full, per_layer = (tokens,), experts.shape, experts.shape[:2]
    columns: list[tuple[str, Array | None, tuple[str, ...], tuple[int, ...]]] = [
        ("experts", trace.experts, ids, full),
        ("request", trace.request, ("<i4",), row),
        ("position", trace.position, ("<i4",), row),
        ("phase", trace.phase, ("|u1",), row),
    ]
    shapes = {"weights": full, "recorded": per_layer}
    columns += [(name, getattr(trace, name), types, shapes.get(name, row)) for name, types in OPTIONAL_COLUMNS.items()]
    columns += [(f"lookahead_{d}", array, ids, full) for d, array in trace.lookahead.items()]
    for name, array, types, shape in columns:
        if array is not None:
            yield from _column_faults(name, array, types, shape)
    for distance in trace.lookahead:
        if distance < 1:
            yield Fault(f"lookahead_{distance}", "must look at least one layer ahead")


def _column_faults(name: str, array: Array, types: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[Fault]:
    if array.dtype.str not in types:
        wanted = " or ".join(str(np.dtype(code)) for code in types)
        yield Fault(name, f"must be {wanted} (got {array.dtype})")
    if array.shape != shape:
        yield Fault(name, f"must have the shape {list(shape)} (got {list(array.shape)})")
