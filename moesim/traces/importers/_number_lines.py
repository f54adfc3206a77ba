"""Text files with the same numbers on every line, read in large pieces yet checked as strictly as line by line.

A line's *structure* is what remains of it without the characters of numbers. Lines of equal structure hold equally many
numbers, so a whole piece is checked with one comparison and its numbers are read together.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import FileError, TraceError
from moesim.traces.array_files import Array, existing_file

PIECE_BYTES = MAX_LINE_BYTES = 2**24
_NUMBER_CHARACTERS = b"0123456789+-.eEnaN"  # with those of "nan"
_DIGITS = b"0123456789"
_DECIMAL = re.compile(rb"\d+(\.\d+)?")
_SIGNS = set(b"+-")
_POWERS = 10 ** np.arange(16)
_MAX_EXACT = 10**15


@dataclass(frozen=True)
class Piece:
    """Some whole lines of a file, numbered from ``first_line`` (the file's first is 1), each with its newline."""

    first_line: int
    text: bytes


@dataclass(frozen=True)
class Table:
    """The numbers of some lines: ``values`` float64 [lines, columns]."""

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
                text += stream.readline(MAX_LINE_BYTES)
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


def read_table(piece: Piece, structure: bytes, columns: int) -> Table | None:
    """The numbers of lines that all have this structure; None where one has another, or holds something else.

    ``structure`` is that of one line with its newline, and must contain whatever separates two numbers.
    """
    text = piece.text
    lines = text.count(b"\n")
    if not lines:
        return Table(piece.first_line, np.empty((0, columns)))
    try:
        values = _read_decimals(text, lines, structure, columns)
        if values is None and structure_of(text) == structure * lines:
            values = _read_spaced(text, structure, np.float64).reshape(lines, columns)
    except ValueError:
        return None
    return None if values is None else Table(piece.first_line, values)


def _read_spaced(text: bytes, separators: bytes, dtype: type[np.number[Any]]) -> Array:
    blanks = bytes(sorted(set(separators)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text.translate(bytes.maketrans(blanks, b" " * len(blanks))), dtype, sep=" ")
        except DeprecationWarning as error:
            raise ValueError(str(error)) from None


def _read_decimals(text: bytes, lines: int, structure: bytes, columns: int) -> Array | None:
    """The numbers of lines with decimal points in the same columns, and without signs and exponents; else None.

    Several times as fast as reading floats: ``0.05`` is read as the integers 0 and 105, and becomes 5 / 10**2. Both
    numbers are exact as floats, so that their ratio is the nearest float, as it should be.
    """
    line = text[: text.index(b"\n") + 1]
    numbers = [number for number in re.findall(rb"[\d.]+", line) if _DECIMAL.fullmatch(number)]
    alike = line.translate(None, _DIGITS)
    if structure_of(line) != structure or len(numbers) != columns or set(alike) & _SIGNS:
        return None
    if text.translate(None, _DIGITS) != alike * lines:
        return None
    has_point = [b"." in number for number in numbers]
    parts = _read_spaced(text.replace(b".", b" 1"), alike.replace(b".", b""), np.int64).reshape(lines, -1)
    if parts.shape[1] != len(has_point) + sum(has_point):
        return None
    values, column = np.empty((lines, len(has_point)), order="F"), 0  # columns are what is worked on
    for index, pointed in enumerate(has_point):
        whole = parts[:, column]
        values[:, index] = whole
        if pointed:
            marked = parts[:, column + 1]
            if max(int(whole.max()), int(marked.max())) >= _MAX_EXACT or int(whole.max()) * int(marked.max()) >= 2**53:
                return None
            power = _POWERS[np.searchsorted(_POWERS, marked, side="right") - 1]
            values[:, index] = (whole * power + marked - power) / power
        column += 1 + pointed
    return values


def require_table(piece: Piece, place: str, structure: bytes, columns: int, expected: str) -> Table:
    """As :func:`read_table`, but a broken line is an error.

    Raises:
        TraceError: names the first broken line, and what was ``expected`` of it.
    """
    table = read_table(piece, structure, columns)
    if table is None:
        number, line = _first_broken(piece, lambda one: read_table(one, structure, columns) is not None)
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
