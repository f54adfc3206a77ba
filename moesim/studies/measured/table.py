"""Tables of measurements: Parquet files with the columns of ``../shared/data/README.md``, as plain arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import FileError, nearest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Columns that hold text; what else is needed holds numbers.
TEXTS = ("gpu", "model", "backend", "dtype", "distribution", "op", "mode")


@dataclass(frozen=True)
class Table:
    """Columns of equal length: numbers as floats (missing: NaN), text as codes into sorted names (missing: "").

    Attributes:
        name: the file's name without its suffix.
    """

    name: str
    size: int
    numbers: Mapping[str, Floats]
    texts: Mapping[str, tuple[Ints, tuple[str, ...]]]

    def number(self, column: str, default: float = float("nan")) -> Floats:
        """A numeric column; ``default`` where it is missing."""
        values = self.numbers.get(column)
        if values is None:
            return np.full(self.size, default)
        return np.where(np.isnan(values), default, values)

    def groups(self, columns: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Ints]]:
        """Values of some text columns (absent ones count as "") and the rows that have them, sorted by value."""
        code = np.zeros(self.size, dtype=np.int64)
        for column in columns:
            codes, names = self.texts.get(column, (np.zeros(self.size, dtype=np.int64), ("",)))
            code = code * len(names) + codes
        order = np.argsort(code, kind="stable")
        _, starts = np.unique(code[order], return_index=True)
        for rows in np.split(order, starts[1:]) if self.size else []:
            yield tuple(self.text_at(column, int(rows[0])) for column in columns), rows

    def text_at(self, column: str, row: int) -> str:
        """One value of a text column; "" if the column is absent."""
        codes, names = self.texts.get(column, (None, ()))
        return "" if codes is None else names[int(codes[row])]

    def text(self, column: str) -> NDArray[np.str_]:
        """A text column in full."""
        codes, names = self.texts[column]
        return np.asarray(names)[codes]

    def rows(self, index: NDArray[Any]) -> Table:
        """Some of the rows (indices or a mask)."""
        numbers = {name: values[index] for name, values in self.numbers.items()}
        texts = {name: (codes[index], names) for name, (codes, names) in self.texts.items()}
        size = int(index.sum()) if index.dtype == bool else len(index)
        return Table(self.name, size, numbers, texts)


def group_codes(columns: Sequence[Floats]) -> tuple[Ints, int]:
    """A number for each distinct combination of values, and how many there are. [rows]"""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for values in columns:
        _, part = np.unique(values, return_inverse=True)
        code = code * (int(part.max(initial=0)) + 1) + part.ravel()
        _, code = np.unique(code, return_inverse=True)
        code = code.ravel()
    return code, int(code.max(initial=-1)) + 1


def read_table(path: Path, needed: Sequence[str] = ()) -> Table:
    """A Parquet file.

    Args:
        needed: columns that it must have: text those of :data:`TEXTS`, the others numbers.

    Raises:
        FileError: no pyarrow, no such file, not Parquet, or columns are missing or of the wrong kind.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        hint = "pip install 'moesim[tables]'"
        raise FileError.of(str(path), "reading Parquet needs pyarrow, which is not installed", hint) from None
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*.parquet")] if path.parent.is_dir() else []
        raise FileError.of(str(path), "no such file", nearest(path.name, siblings) if siblings else "check the path")
    try:
        content = parquet.read_table(path)
    except (arrow.ArrowInvalid, OSError) as fault:
        raise FileError.of(str(path), f"is not a readable Parquet file: {str(fault).splitlines()[0]}") from None
    missing = [name for name in needed if name not in content.column_names]
    if missing:
        hint = "columns: " + ", ".join(content.column_names)
        raise FileError.of(str(path), f"has no column {', '.join(missing)}", hint)
    numbers: dict[str, Floats] = {}
    texts: dict[str, tuple[Ints, tuple[str, ...]]] = {}
    for name in content.column_names:
        column = content.column(name).combine_chunks()
        try:
            if _is_numeric(arrow, column.type):
                numbers[name] = column.cast(arrow.float64()).to_numpy(zero_copy_only=False)
            elif arrow.types.is_boolean(column.type):
                numbers[name] = column.cast(arrow.int8()).cast(arrow.float64()).to_numpy(zero_copy_only=False)
            else:
                texts[name] = _text(arrow, column)
        except (arrow.ArrowNotImplementedError, arrow.ArrowInvalid):
            if name in needed:
                told = f"column {name} holds neither numbers nor text (it is {column.type})"
                raise FileError.of(str(path), told) from None
    if wrong := [name for name in needed if name not in (texts if name in TEXTS else numbers)]:
        told = ", ".join(f"{name} must hold {'text' if name in TEXTS else 'numbers'}" for name in wrong)
        raise FileError.of(str(path), f"column {told}")
    return Table(path.stem, content.num_rows, numbers, texts)


def _is_numeric(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _text(arrow: Any, column: Any) -> tuple[Ints, tuple[str, ...]]:
    encoded = column.cast(arrow.string()).fill_null("").dictionary_encode()
    encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=lambda index: names[index])
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return rank[codes], tuple(names[index] for index in order)
