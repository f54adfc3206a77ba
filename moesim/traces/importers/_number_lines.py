"""Text files with the same numbers on every line, read in large pieces yet checked as strictly as line by line.

A line's *structure* is what remains of it without the characters of numbers. Lines of equal structure hold equally many
numbers, so a whole piece is checked with one comparison and its numbers are read in one go.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moesim.errors import FileError, TraceError
from moesim.traces.array_files import Array, existing_file

PIECE_BYTES = 2**24
_NUMBER_CHARACTERS = b"0123456789+-.eEnaN"  # with those of "nan"


@dataclass(frozen=True)
class Piece:
    """Some whole lines of a file; ``first_line`` counts from 1. ``text`` ends with a newline, its only kind of line end."""

    first_line: int
    text: bytes


@dataclass(frozen=True)
class Table:
    """The numbers of some lines: ``values`` [lines, columns], int64 or float64."""

    first_line: int
    values: Array


def pieces(path: Path) -> Iterator[Piece]:
    """The file, some megabytes at a time.

    Raises:
        FileError: missing, a directory, not readable, or no text file (a line of megabytes).
    """
    line = 1
    try:
        with existing_file(path).open("rb") as stream:
            while text := stream.read(PIECE_BYTES):
                text += stream.readline(PIECE_BYTES)
                if not text.endswith(b"\n") and stream.read(1):
                    raise FileError.of(f"{path}:{line}", "has a line of megabytes", "is it the right file?")
                text = text.replace(b"\r\n", b"\n")
                yield Piece(line, text if text.endswith(b"\n") else text + b"\n")
                line += text.count(b"\n")
    except OSError as error:
        raise FileError.of(str(path), f"can't be read: {error.strerror}") from None


def structure_of(line: bytes) -> bytes:
    """What remains of a line, or of lines, without the numbers."""
    return line.translate(None, _NUMBER_CHARACTERS)


def read_table(piece: Piece, structure: bytes, columns: int, integers: bool = False) -> Table | None:
    """The numbers of lines that all have this structure; None where one has another, or holds something else.

    ``structure`` is that of one line with its newline.
    """
    text = piece.text
    lines = text.count(b"\n")
    if structure_of(text) != structure * lines:
        return None
    spaced = text.translate(_separators_to_spaces(structure))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = np.fromstring(spaced, np.int64 if integers else np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    return Table(piece.first_line, values.reshape(lines, columns)) if values.size == lines * columns else None


def require_table(
    piece: Piece, place: str, structure: bytes, columns: int, expected: str, integers: bool = False
) -> Table:
    """As :func:`read_table`, but a broken line is an error.

    Raises:
        TraceError: names the first broken line, and what was ``expected`` of it.
    """
    table = read_table(piece, structure, columns, integers)
    if table is None:
        number, line = _first_broken(piece, lambda one: read_table(one, structure, columns, integers) is not None)
        raise TraceError.of(f"{place}:{number}", f"must be {expected} (got {shown(line)})", "mend or remove this line")
    return table


def refuse(table: Table, wrong: Array, place: str, message: str, hint: str = "") -> None:
    """Complain about the first line for which ``wrong`` [lines] is true, if any.

    Raises:
        TraceError: at that line.
    """
    if wrong.any():
        raise TraceError.of(f"{place}:{table.first_line + int(wrong.argmax())}", message, hint)


def shown(line: bytes) -> str:
    """A line as an error message may quote it."""
    text = line.decode("utf-8", "replace").rstrip("\n")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _separators_to_spaces(structure: bytes) -> bytes:
    characters = bytes(sorted(set(structure)))
    return bytes.maketrans(characters, b" " * len(characters))


def _first_broken(piece: Piece, sound: Callable[[Piece], bool]) -> tuple[int, bytes]:
    """Number and text of the first line that is not sound; halves the piece until one line is left."""
    lines = piece.text.splitlines(keepends=True)
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        if sound(Piece(0, b"".join(lines[low:middle]))):
            low = middle
        else:
            high = middle
    return piece.first_line + low, lines[low]
