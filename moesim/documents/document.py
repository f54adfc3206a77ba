"""A file's text, and a document: plain values that remember where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moesim.errors import FileError, nearest

MAX_BYTES = 4 * 2**20
Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file: its ``data``, and where each key or item stands.

    Attributes:
        lines: the line in the file.
        settings: what stands elsewhere, as ``--set seed=1``.
    """

    name: str
    data: Any
    lines: Mapping[Keys, int] = field(default_factory=dict)
    settings: Mapping[Keys, str] = field(default_factory=dict)

    def place(self, keys: Iterable[str | int]) -> str:
        """``file:line: a.b`` for the deepest part of ``keys`` that stands somewhere."""
        keys = tuple(keys)
        dotted = ".".join(str(key) if key != "" else "''" for key in keys)
        known = self._standing(keys)
        where = f"{self.name}:{self.lines[known]}" if known in self.lines else self.settings.get(known, self.name)
        return f"{where}: {dotted}" if dotted else where

    def line(self, keys: Keys) -> int:
        """The line of the deepest part of ``keys`` that stands in the file; 0 where none does."""
        return self.lines.get(self._standing(keys), 0)

    def holds(self, keys: Keys) -> bool:
        """Whether there is a value at ``keys``."""
        data = self.data
        for key in keys:
            if not isinstance(data, dict) or key not in data:
                return False
            data = data[key]
        return True

    def _standing(self, keys: Keys) -> Keys:
        parts = (keys[:length] for length in range(len(keys), -1, -1))
        return next((part for part in parts if part in self.settings or part in self.lines), ())


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file (or of a pipe).

    Raises:
        FileError: missing, a directory, not readable, too large, or not UTF-8.
    """
    try:
        if path.is_dir():
            raise FileError.of(str(path), "is a directory, not a file")
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise FileError.of(str(path), f"is too large: more than {max_bytes} bytes")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        siblings = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if siblings else "check the path"
        raise FileError.of(str(path), "no such file", hint) from None
    except UnicodeDecodeError as error:
        raise FileError.of(str(path), f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise FileError.of(str(path), f"can't be read: {error.strerror}") from None
