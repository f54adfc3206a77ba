"""JSON lines ``{"layer_idx", "token_idx", "selected_ids", "gate_weights"}``, one for each token and layer.

``token_idx`` counts tokens through the file; lines may stand in any order. A line with fewer experts than others is a
token that used fewer. ``gate_weights`` may be missing, but then from every line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from moesim.errors import TraceError
from moesim.traces.array_files import Array
from moesim.traces.importers._growing import GrowingRouting, repetition
from moesim.traces.importers._number_lines import Piece, pieces, read_table, shown, structure_of
from moesim.traces.importers._requests import Numbers, request_columns
from moesim.traces.importers._routing import Routing, imported_trace
from moesim.traces.trace import RoutingTrace

_NEEDED = ("layer_idx", "token_idx", "selected_ids")
_KEYS = (*_NEEDED, "gate_weights")
_MAX = {"layer_idx": 65535, "token_idx": 2**30, "selected_ids": 65535}
_HINT = 'a line is {"layer_idx": 0, "token_idx": 0, "selected_ids": [3, 1], "gate_weights": [0.7, 0.3]}'


def import_gate_jsonl(
    path: Path,
    *,
    num_experts: PositiveInt,
    prompt_tokens: Numbers,
    request_tokens: Numbers | None = None,
    model: str = "",
) -> RoutingTrace:
    """A trace from JSON lines of gate decisions.

    Args:
        path: the file.
        num_experts: routed experts per layer.
        prompt_tokens: how many tokens of each request are its prompt.
        request_tokens: how many tokens each request has; None: the file is one request.
        model: name of the language model.

    Raises:
        FileError: missing or no text.
        TraceError: a broken line (with its number), or routing that doesn't fit the options.
    """
    place = str(path)
    tokens, layers, experts, weights = _gathered(path, place)
    _refuse_gaps(tokens, place)
    request, position, phase = request_columns(len(experts), prompt_tokens, request_tokens, place)
    return imported_trace(
        Routing(experts, request, position, phase, weights),
        place,
        num_experts,
        name=path.stem,
        model=model,
        moe_layer_indices=[int(one) for one in layers],
    )


def _refuse_gaps(tokens: Array, place: str) -> None:
    gaps = np.diff(tokens) > 1
    if gaps.any():
        told = f"token_idx skips {tokens[gaps.argmax()] + 1}, between {tokens[0]} and {tokens[-1]}"
        raise TraceError.of(place, told, "number the tokens without gaps, request after request")


@dataclass(frozen=True)
class _Lines:
    """What lines say: layer and token [lines], experts and weights [lines, most experts of a line]; -1, 0 = none."""

    layer: Array
    token: Array
    experts: Array
    weights: Array | None


def _gathered(path: Path, place: str) -> tuple[Array, Array, Array, Array | None]:
    """Token numbers, layer numbers, experts and weights [tokens, layers, slots] of the whole file.

    Raises:
        TraceError: there are none, only some lines know weights, or a line repeats another.
    """
    routing, weighted = GrowingRouting(place, by_slot=False), set()
    for piece in pieces(path):
        lines = _read(piece, place)
        weighted.add(lines.weights is not None)
        if len(weighted) > 1:
            raise TraceError.of(place, "has gate_weights in some lines only")
        weights = np.zeros(lines.experts.shape, np.float32) if lines.weights is None else lines.weights
        if (again := routing.add(lines.token, lines.layer, lines.experts, weights)) is not None:
            hint = "number the tokens on from request to request"
            raise repetition(place, piece.first_line + again, "layer_idx and token_idx", hint)
    if not weighted:
        raise TraceError.of(place, "holds no routing", _HINT)
    tokens, layers, experts, known = routing.result()
    return tokens, layers, experts, known if True in weighted else None


def _read(piece: Piece, place: str) -> _Lines:
    """Quickly where all lines are built like the first one, else line by line."""
    first, _, _ = piece.text.partition(b"\n")
    example = _parsed(first, f"{place}:{piece.first_line}")
    lines = _read_alike(piece, first + b"\n", example)
    if lines is None:
        text = piece.text.splitlines()
        rows = [_parsed(line, f"{place}:{piece.first_line + index}") for index, line in enumerate(text)]
        lines = _packed(rows, place, piece.first_line)
    return lines


def _read_alike(piece: Piece, line: bytes, example: dict[str, Any]) -> _Lines | None:
    columns = sum(len(value) if isinstance(value, list) else 1 for value in example.values())
    table = read_table(piece, structure_of(line), columns)
    if table is None:  # perhaps for an exponent, which can be told from the letters of a key only without the keys
        table = read_table(Piece(1, _without_keys(piece.text)), structure_of(_without_keys(line)), columns)
    if table is None:
        return None
    found: dict[str, Array] = {}
    start = 0
    for key, value in example.items():
        width = len(value) if isinstance(value, list) else 1
        found[key] = table.values[:, start : start + width]
        start += width
    for key, largest in _MAX.items():
        if ((found[key] < 0) | (found[key] > largest) | (found[key] != np.floor(found[key]))).any():
            return None
    weights = found.get("gate_weights")
    return _Lines(
        found["layer_idx"][:, 0].astype(np.uint16),
        found["token_idx"][:, 0].astype(np.int32),
        found["selected_ids"].astype(np.int32),
        None if weights is None else weights.astype(np.float32),
    )


def _without_keys(text: bytes) -> bytes:
    for key in _KEYS:
        text = text.replace(f'"{key}"'.encode(), b"")
    return text


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    """One line, checked.

    Raises:
        TraceError: it is no such line.
    """
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise TraceError.of(place, f"is not JSON (got {shown(line)})", _HINT) from None
    if not isinstance(said, dict) or set(said) - set(_KEYS) or not set(_NEEDED) <= set(said):
        raise TraceError.of(place, f"must have just the keys {', '.join(_KEYS)} (got {shown(line)})", _HINT)
    for key, largest in _MAX.items():
        values = said[key] if key == "selected_ids" else [said[key]]
        if not isinstance(values, list) or not all(type(one) is int and 0 <= one <= largest for one in values):
            raise TraceError.of(place, f"{key} must be whole numbers from 0 to {largest} (got {shown(line)})", _HINT)
    weights = said.get("gate_weights", [0] * len(said["selected_ids"]))
    if not isinstance(weights, list) or not all(type(one) in (int, float) for one in weights):
        raise TraceError.of(place, f"gate_weights must be numbers (got {shown(line)})", _HINT)
    if len(weights) != len(said["selected_ids"]):
        raise TraceError.of(place, "gate_weights must be as many as selected_ids", _HINT)
    return said


def _packed(rows: list[dict[str, Any]], place: str, first_line: int) -> _Lines:
    weighted = ["gate_weights" in row for row in rows]
    if any(weighted) and not all(weighted):
        line = first_line + weighted.index(not weighted[0])
        raise TraceError.of(f"{place}:{line}", "gate_weights stands in some lines only")
    width = max(len(row["selected_ids"]) for row in rows)
    experts = np.full((len(rows), width), -1, np.int32)
    weights = np.zeros((len(rows), width), np.float32)
    for index, row in enumerate(rows):
        experts[index, : len(row["selected_ids"])] = row["selected_ids"]
        weights[index, : len(row["selected_ids"])] = row.get("gate_weights", 0)
    layer = np.array([row["layer_idx"] for row in rows], np.uint16)
    token = np.array([row["token_idx"] for row in rows], np.int32)
    return _Lines(layer, token, experts, weights if weighted[0] else None)
