"""Routing that grows line by line: no more memory than the trace itself and the lines that are added."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from moesim.errors import MoesimError, TraceError
from moesim.traces.array_files import Array
from moesim.traces.importers._routing import refuse_sparse


class GrowingRouting:
    """Experts and gate weights by (token, layer, slot), in whatever order the lines about them come.

    Args:
        place: the file, for errors.
        by_slot: a line is about one slot; else about all slots of a token in a layer.
    """

    def __init__(self, place: str, *, by_slot: bool):
        self._place, self._by_slot = place, by_slot
        self._tokens: dict[int, int] = {}
        self._layers: dict[int, int] = {}
        self._experts = np.empty((0, 0, 0), np.int32)
        self._weights = np.empty((0, 0, 0), np.float16)
        self._seen = np.empty((0, 0, 0) if by_slot else (0, 0), np.bool_)
        self._activations = 0

    def add(self, token: Array, layer: Array, experts: Array, weights: Array, slot: Array | None = None) -> int | None:
        """Add lines.

        Args:
            token, layer: any whole numbers that tell tokens and layers apart. [lines]
            experts, weights: -1 and 0 where there is none. [lines, slots], or [lines] where ``slot`` says which.

        Returns:
            The index of the first line that is about what an earlier one was about, if there is one.

        Raises:
            TraceError: the file is about few of the tokens, layers and slots that it names.
        """
        tokens, rows = self._placed(token, self._tokens)
        _, columns = self._placed(layer, self._layers)
        self._activations += experts.size
        self._make_room(int(slot.max()) + 1 if slot is not None else experts.shape[1])
        cell: tuple[Array, ...] = (rows, columns) if slot is None else (rows, columns, slot)
        if (again := self._repeated(cell, np.unique(tokens))) is not None:
            return again
        place: Any = cell if slot is not None else (rows, columns, slice(experts.shape[1]))
        self._experts[place] = experts
        with np.errstate(over="ignore"):  # what overflows becomes infinite, which the checks of a trace tell
            self._weights[place] = weights
        return None

    def result(self) -> tuple[Array, Array, Array, Array]:
        """Token numbers, layer numbers, experts and weights [tokens, layers, slots], both ascending."""
        count, shape = len(self._tokens), (len(self._layers), self._experts.shape[2])
        tokens, by_token = _ascending(self._tokens)
        layers, by_layer = _ascending(self._layers)
        found = []
        for values in (self._experts, self._weights):
            values = values[:count, : shape[0]]
            values = values if by_token is None else values[by_token]
            found.append(values if by_layer is None else values[:, by_layer])
        return tokens, layers, found[0], found[1]

    @staticmethod
    def _placed(key: Array, known: dict[int, int]) -> tuple[Array, Array]:
        """Where each distinct key stands, and each line's. Lines of one key mostly stand together."""
        start = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1])
        place = np.array([known.setdefault(one, len(known)) for one in key[start].tolist()], dtype=np.int64)
        return place, np.repeat(place, np.diff(start, append=len(key)))

    def _make_room(self, slots: int) -> None:
        count, layers = len(self._tokens), len(self._layers)
        slots = max(slots, self._experts.shape[2])
        refuse_sparse((count, layers, slots), self._activations, self._place)
        have = self._experts.shape
        if count <= have[0] and layers <= have[1] and slots == have[2]:
            return
        shape = (have[0] if count <= have[0] else max(count, have[0] + have[0] // 2), layers, slots)
        self._experts = _enlarged(self._experts, shape, -1)
        self._weights = _enlarged(self._weights, shape, 0)
        self._seen = _enlarged(self._seen, shape if self._by_slot else shape[:2], False)

    def _repeated(self, cell: tuple[Array, ...], rows: Array) -> int | None:
        """Mark cells as seen; the first line whose cell was seen already, if any. ``rows``: those that cells lie in."""
        seen_before = self._seen[cell]
        count = int(np.count_nonzero(self._seen[rows]))
        self._seen[cell] = True
        if int(np.count_nonzero(self._seen[rows])) - count == len(cell[0]):
            return None
        flat = np.ravel_multi_index(cell, self._seen.shape)
        order = np.argsort(flat, kind="stable")
        repeats = order[1:][flat[order[1:]] == flat[order[:-1]]]
        return min(int(lines.min()) for lines in (np.flatnonzero(seen_before), repeats) if len(lines))


def _enlarged(values: Array, shape: tuple[int, ...], fill: int) -> Array:
    larger = np.full(shape, fill, values.dtype)
    if math.prod(values.shape):
        larger[tuple(slice(size) for size in values.shape)] = values
    return larger


def _ascending(known: dict[int, int]) -> tuple[Array, Array | None]:
    """The keys in ascending order, and the order that brings them there; None where they stand so already."""
    keys = np.array(list(known), dtype=np.int64)
    if (np.diff(keys) > 0).all():
        return keys, None
    order = np.argsort(keys)
    return keys[order], order


def repetition(place: str, line: int, what: str, hint: str) -> MoesimError:
    """The error for a line that is about what an earlier line was about."""
    return TraceError.of(f"{place}:{line}", f"repeats the {what} of an earlier line", hint)
