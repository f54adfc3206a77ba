"""Traces on disk, format 1: an ``.npz`` file, or a folder that holds the same arrays as ``.npy`` files.

Both hold ``format`` and ``card`` (text, the card as JSON) beside the arrays of :class:`RoutingTrace`, so that
unzipping the one gives the other.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moesim.documents import Document, validate
from moesim.errors import Fault, FileError, TraceError, nearest
from moesim.traces.array_files import existing, read_folder, read_npz, text_of
from moesim.traces.card import TraceCard
from moesim.traces.checks import check, within
from moesim.traces.trace import FORMAT, OPTIONAL_COLUMNS, Array, RoutingTrace

_REQUIRED = ("experts", "request", "position", "phase")
_LOOKAHEAD = re.compile(r"lookahead_([1-9]\d?)")


def load_trace(path: Path) -> RoutingTrace:
    """A trace from an ``.npz`` file (into memory) or from a folder of ``.npy`` files (memory-mapped), fully checked.

    Raises:
        FileError: missing, damaged, or not a file of this format.
        TraceError: arrays or card that are wrong, don't fit each other, or don't have the checksum on the card.
    """
    path = Path(path)
    arrays = read_folder(path) if existing(path).is_dir() else read_npz(path)
    _check_format(arrays, path)
    card = read_card(text_of(arrays, "card", str(path)), f"{path}: card")
    trace = check(_trace_of(card, arrays, str(path)), str(path))
    if card.sha256 is not None and card.sha256 != trace.sha256:
        told = f"the arrays have the checksum {trace.sha256[:12]}…, the card says {card.sha256[:12]}…"
        raise TraceError.of(str(path), told, "the file was changed after it was written; get the original")
    return trace


def save_trace(trace: RoutingTrace, path: Path) -> None:
    """Write a trace, checked, with its checksum on the card, to an ``.npz`` file, or without a suffix to a new folder.

    What stands at ``path`` is replaced only by a complete file.

    Raises:
        TraceError: the content of the trace is wrong.
        FileError: the suffix is another one, or the place can't be written.
    """
    path = Path(path)
    if path.suffix not in (".npz", ""):
        raise FileError.of(str(path), f"unknown kind of trace {path.suffix!r}", "end it in .npz, or name a folder")
    card = check(trace).card.model_copy(update={"sha256": trace.sha256})
    arrays = {"format": np.array(FORMAT), "card": np.array(card_json(card)), **trace.arrays()}
    write = _write_archive if path.suffix else _write_folder
    try:
        with tempfile.TemporaryDirectory(prefix=".moesim-", dir=path.parent) as scratch:
            os.replace(write(Path(scratch) / path.name, arrays), path)
    except OSError as error:
        told = f"can't be written: {error.strerror}"
        raise FileError.of(str(path), told, "is there such a folder, free to write?") from None


def card_json(card: TraceCard) -> str:
    """The card as one line of JSON, without what is None or empty."""
    return json.dumps(card.model_dump(exclude_defaults=True), ensure_ascii=False, allow_nan=False)


def read_card(text: str, place: str) -> TraceCard:
    """A card from its JSON.

    Raises:
        TraceError: not JSON, or not a card; every fault at once.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError.of(place, f"is not JSON: {error}") from None
    return validate(Document(place, data), TraceCard, TraceError)


def _check_format(arrays: Mapping[str, Array], path: Path) -> None:
    if "format" not in arrays:
        neutral = "it looks like the neutral format: import it with 'moesim trace import neutral'"
        hint = neutral if "meta" in arrays else "is it a moesim trace?"
        raise FileError.of(str(path), "has no 'format', so it is not a moesim trace", hint)
    found = text_of(arrays, "format", str(path))
    if found != FORMAT:
        newer = re.fullmatch(r"moesim-trace/\d+", found)
        raise FileError.of(
            f"{path}: format",
            f"must be {FORMAT!r} (got {found[:40]!r})",
            "it was written by a newer moesim; install that" if newer else "is it a moesim trace?",
        )


def _trace_of(card: TraceCard, arrays: Mapping[str, Array], place: str) -> RoutingTrace:
    columns = {name: array for name, array in arrays.items() if name not in ("format", "card")}
    faults = [Fault(f"{place}: {name}", "is missing") for name in _REQUIRED if name not in columns]
    lookahead: dict[int, Array] = {}
    for name in sorted(columns):
        if match := _LOOKAHEAD.fullmatch(name):
            lookahead[int(match[1])] = columns.pop(name)
        elif name not in (*_REQUIRED, *OPTIONAL_COLUMNS):
            hint = nearest(name, [*_REQUIRED, *OPTIONAL_COLUMNS, "lookahead_1"])
            faults.append(Fault(f"{place}: {name}", "unknown array", hint))
    if faults:
        raise TraceError(faults)
    fields: dict[str, Any] = dict(columns)
    try:
        return RoutingTrace(card=card, lookahead=lookahead, **fields)
    except TraceError as error:
        raise TraceError(within(place, error.faults)) from None


def _write_archive(path: Path, arrays: Mapping[str, Array]) -> Path:
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return path


def _write_folder(path: Path, arrays: Mapping[str, Array]) -> Path:
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array, allow_pickle=False)
    return path
