"""BigMoeOnEdge's route trace: a CSV file with one line for each (turn, phase, step, layer, slot).

Comments at the start hold the model's shape and each layer's expert bytes; then a header line names the columns, which
are read by name. A turn becomes a request, ``step`` (the position in the context) its position. Residency, bytes read
and drops are what the engine made of the routing, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from moesim.errors import FileError, TraceError
from moesim.traces.array_files import Array
from moesim.traces.importers._growing import GrowingRouting, repetition
from moesim.traces.importers._number_lines import Piece, Table, pieces, refuse, require_table
from moesim.traces.importers._routing import Routing, imported_trace
from moesim.traces.trace import DECODE, RoutingTrace

_FACT = re.compile(r"(\w+)=(\S*)")
#: The columns that are read, with the largest value and the type of each.
_COLUMNS = {
    "turn": (2**30, np.int32),
    "phase": (DECODE, np.uint8),
    "step": (2**30, np.int32),
    "layer": (65535, np.uint16),
    "slot": (255, np.uint8),
    "expert": (65535, np.uint16),
}


@dataclass(frozen=True)
class _Head:
    """What stands before the first line of numbers, and how many lines that is."""

    facts: dict[str, str]
    expert_bytes: dict[int, int]
    columns: Sequence[str]
    lines: int

    @property
    def structure(self) -> bytes:
        """Of a line of numbers."""
        return b"," * (len(self.columns) - 1) + b"\n"


def import_big_moe_on_edge(path: Path, *, num_experts: PositiveInt | None = None) -> RoutingTrace:
    """A trace from BigMoeOnEdge's ``--route-trace`` file.

    Args:
        path: the file.
        num_experts: routed experts per layer, where the file's comments don't say ``n_expert``.

    Raises:
        FileError: missing, or not of this format.
        TraceError: a broken line (with its number), a missing option, or routing that contradicts itself.
    """
    place = str(path)
    head, (tokens, layers, experts, weights) = _gathered(path, place)
    size = num_experts if num_experts is not None else _whole(head.facts.get("n_expert", ""))
    if size is None:
        raise TraceError.of(place, "does not say how many experts a layer has", "give the option num_experts")
    routing = Routing(
        experts,
        request=tokens >> 32,
        position=(tokens & (2**32 - 1)) >> 1,
        phase=tokens & 1,
        weights=weights,
    )
    sizes = [head.expert_bytes.get(int(one), 0) for one in layers]
    return imported_trace(
        routing,
        place,
        size,
        name=path.stem,
        model=head.facts.get("model", ""),
        moe_layer_indices=[int(one) for one in layers],
        expert_bytes=sizes if all(sizes) else None,
        source="BigMoeOnEdge route trace",
    )


def _gathered(path: Path, place: str) -> tuple[_Head, tuple[Array, Array, Array, Array | None]]:
    """The head, and token keys, layers, experts and weights [tokens, layers, slots] of the whole file."""
    head, routing, unknown, lines = None, GrowingRouting(place, by_slot=True), 0, 0
    for piece in pieces(path):
        if head is None:
            head, piece = _split_head(piece, place)
        if piece.text:
            expected = "one number for each of " + ",".join(head.columns)
            table = require_table(piece, place, head.structure, len(head.columns), expected)
            column = dict(_checked(table, head.columns, place))
            again = routing.add(_key(column), column["layer"], column["expert"], column["weight"], column["slot"])
            if again is not None:
                told = "turn, phase, step, layer and slot"
                raise repetition(place, piece.first_line + again, told, "is it two runs in one file?")
            unknown, lines = unknown + int(np.isnan(column["weight"]).sum()), lines + len(table.values)
    if head is None or not lines:
        raise FileError.of(place, "holds no routing", "a route trace has a line for each routed expert")
    if 0 < unknown < lines:
        raise TraceError.of(place, f"knows the weight of some experts only ({unknown} are nan)")
    tokens, layers, experts, weights = routing.result()
    return head, (tokens, layers, experts, None if unknown else weights)


def _key(column: dict[str, Array]) -> Array:
    """One number for turn, step and phase, in which order tokens stand in a trace."""
    turn, step = column["turn"].astype(np.int64), column["step"].astype(np.int64)
    return (turn << 32) | (step << 1) | column["phase"]


def _split_head(piece: Piece, place: str) -> tuple[_Head, Piece]:
    facts: dict[str, str] = {}
    expert_bytes: dict[int, int] = {}
    text, line = piece.text, 1
    while text.startswith(b"#"):
        comment, _, text = text.partition(b"\n")
        said = dict(_FACT.findall(comment.decode("utf-8", "replace")))
        layer, size = _whole(said.get("layer", "")), _whole(said.get("expert_bytes", ""))
        if layer is not None and size is not None:
            expert_bytes[layer] = size
        facts |= said
        line += 1
    header, _, text = text.partition(b"\n")
    columns = header.decode("utf-8", "replace").split(",")
    missing = [name for name in (*_COLUMNS, "weight") if name not in columns]
    if missing or len(set(columns)) != len(columns):
        told = f"has no column {missing[0]!r}" if missing else "names a column twice"
        raise FileError.of(f"{place}:{line}", told, "the header of a route trace starts turn,phase,step,layer")
    return _Head(facts, expert_bytes, columns, line), Piece(line + 1, text)


def _checked(table: Table, names: Sequence[str], place: str) -> Iterator[tuple[str, Array]]:
    """Each column that is read, in its type."""
    for name, (largest, dtype) in _COLUMNS.items():
        values = table.values[:, names.index(name)]
        wrong = ~((values >= 0) & (values <= largest) & (values == np.floor(values)))
        refuse(table, wrong, place, f"{name} must be a whole number from 0 to {largest}")
        yield name, values.astype(dtype)
    weights = table.values[:, names.index("weight")]
    refuse(table, (weights < 0) | (weights > np.finfo(np.float16).max), place, "weight must be from 0 to 65504, or nan")
    yield "weight", weights.astype(np.float16)


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 18 else None
