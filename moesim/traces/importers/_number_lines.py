"""Text files with the same numbers on every line, read in large pieces yet checked as strictly as line by line.

A line's *structure* is what remains of it without the characters of numbers. Lines of equal structure hold equally many
numbers, so a whole piece is checked with one comparison and its numbers are read together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moesim.errors import FileError, TraceError
from moesim.traces.array_files import Array, existing_file

PIECE_BYTES = 2**24
_NUMBER_CHARACTERS = b"0123456789+-.eEnaN"  # with those of "nan"
_IS_NUMBER = np.isin(np.arange(256), np.frombuffer(_NUMBER_CHARACTERS, np.uint8))
_IS_DIGIT = np.isin(np.arange(256), np.frombuffer(b"0123456789", np.uint8))
_PLAIN_LENGTH = 16  # 15 digits and a point


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


def read_table(piece: Piece, structure: bytes, columns: int, wanted: Sequence[int] | None = None) -> Table | None:
    """The numbers of lines that all have this structure; None where one has another, or holds something else.

    ``structure`` is that of one line with its newline. ``wanted``: the columns to read, in this order; None: all.
    """
    text = np.frombuffer(piece.text, np.uint8)
    lines = piece.text.count(b"\n")
    if structure_of(piece.text) != structure * lines:
        return None
    borders = np.flatnonzero(np.diff(_IS_NUMBER[text], prepend=False))
    start, stop = borders[0::2], borders[1::2]  # the text ends with a newline, so every number has an end
    if len(start) != lines * columns:
        return None
    start, stop = (edge.reshape(lines, columns)[:, slice(None) if wanted is None else wanted] for edge in (start, stop))
    try:
        return Table(piece.first_line, _numbers(text, start.ravel(), stop.ravel()).reshape(start.shape))
    except ValueError:
        return None


def _numbers(text: Array, start: Array, stop: Array) -> Array:
    """The numbers that stand at ``text[start:stop]``, all digits of one place at a time. float64 [numbers]

    Up to 15 digits with at most one point are an integer over a power of ten, both exact as floats, so that their ratio
    is the nearest float. What is written otherwise (a sign, an exponent, nan) is read one by one.

    Raises:
        ValueError: not a number.
    """
    length = stop - start
    digits = np.zeros(len(start))
    decimals = np.zeros(len(start), np.int64)
    plain = (length <= _PLAIN_LENGTH) & ((length > 1) | _IS_DIGIT[text[start]])
    for place in range(min(int(length.max(initial=0)), _PLAIN_LENGTH)):
        here = np.flatnonzero(length > place) if place else slice(None)
        character = text[start[here] + place]
        is_digit = _IS_DIGIT[character]
        digits[here] = np.where(is_digit, digits[here] * 10 + (character - np.uint8(ord("0"))), digits[here])
        if not is_digit.all():
            plain[here] &= is_digit | ((character == ord(".")) & (decimals[here] == 0))
            decimals[here] = np.where(is_digit, decimals[here], length[here] - place - 1)
    digits /= np.power(10.0, decimals)
    for index in np.flatnonzero(~plain):
        digits[index] = float(text[start[index] : stop[index]].tobytes())
    return digits


def require_table(
    piece: Piece, place: str, structure: bytes, columns: int, expected: str, wanted: Sequence[int] | None = None
) -> Table:
    """As :func:`read_table`, but a broken line is an error.

    Raises:
        TraceError: names the first broken line, and what was ``expected`` of it.
    """
    table = read_table(piece, structure, columns, wanted)
    if table is None:
        number, line = _first_broken(piece, lambda one: read_table(one, structure, columns, wanted) is not None)
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
