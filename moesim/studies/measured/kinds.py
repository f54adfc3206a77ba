"""What a kind of table means: its rows as work for a cost form, grouped by GPU and software stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from moesim.costs.fitted import Floats, Form, Peaks, Work, peaks_of
from moesim.errors import CardError
from moesim.hardware import load_gpu
from moesim.studies.measured.table import Ints, Table

#: How tables call a GPU, where it isn't the card's name with underscores.
_CARD_OF = {
    "a100_sxm": "a100-80gb-sxm",
    "a100_pairwise_nvlink": "a100-80gb-sxm",
    "h100_pairwise_nvlink": "h100-sxm",
    "rtx_pro_6000": "rtx-pro-6000-server",
    "gb200_sxm": "gb200",
    "mi300x_sxm": "mi300x",
}


@dataclass(frozen=True)
class Group:
    """Rows that share form, GPU and stack.

    Attributes:
        gpu: as the table calls it; ``card``: the GPU's card.
        arithmetic: the type of operands whose peak counts.
        rows: their places in the table; ``work``: the form's arrays over them.
        naive: other formulas to compare with, by name; each gives seconds of the rows from the GPU's peaks.
    """

    form: Form
    gpu: str
    card: str
    stack: str
    rows: Ints
    work: Work
    naive: Mapping[str, Callable[[Peaks], Floats]] = field(default_factory=dict)
    arithmetic: str = "bf16"

    def peaks(self) -> Peaks:
        """Of the group's GPU."""
        return card_peaks(self.card, self.arithmetic)


@dataclass
class Prepared:
    """A table made ready: groups, and what lies outside of the forms' domain (reason -> rows)."""

    groups: list[Group] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, rows: int) -> None:
        """Counts rows outside of the domain."""
        if rows:
            self.outside[reason] = self.outside.get(reason, 0) + rows


@dataclass(frozen=True)
class Kind:
    """A kind of table.

    Attributes:
        name: as in ``--table``; ``columns``: what a file must have.
        prepare: table and (for MoE layers) its workload statistics to groups.
        fits: of a table, the rows that fits use. [rows]
        shapes: of a table, the columns whose combination is a shape: left out whole in cross-validation.
        bucket: of a table, a label for each row's size class, and the labels' key in JSON.
        slice_of: of a table, the default slice of each row.
    """

    name: str
    columns: tuple[str, ...]
    prepare: Callable[[Table, Table | None], Prepared]
    shapes: tuple[str, ...]
    fits: Callable[[Table], NDArray[np.bool_]]
    bucket_key: str
    buckets: Callable[[Table], tuple[Ints, tuple[str, ...]]]
    slices: Callable[[Table], tuple[Ints, tuple[str, ...]]]
    range_columns: tuple[str, ...] = ()


def positive(table: Table, names: Sequence[str], prepared: Prepared) -> NDArray[np.bool_]:
    """Rows where all of some columns are numbers above zero; the others are left out, by the column at fault."""
    usable = np.ones(table.size, dtype=bool)
    for name in names:
        values = table.number(name, 1.0) if name not in table.numbers else table.numbers[name]
        wrong = ~(np.isfinite(values) & (values > 0))
        prepared.leave_out(f"{name} missing or not above zero", int((usable & wrong).sum()))
        usable &= ~wrong
    return usable


def card_of(gpu: str) -> str | None:
    """The card of a GPU as tables call it; None if there is no such card."""
    name = _CARD_OF.get(gpu, gpu.replace("_", "-"))
    try:
        load_gpu(name)
    except CardError:
        return None
    return name


@cache
def card_peaks(card: str, arithmetic: str) -> Peaks:
    """The peaks of a GPU's card."""
    return peaks_of(load_gpu(card), arithmetic)


def capability(card: str) -> float:
    """Compute capability of a card's GPU; of the middle generation where it has none."""
    return float(load_gpu(card).compute_capability or 9.0)


def by_limit(values: Floats, limits: tuple[tuple[float, str], ...], above: str) -> tuple[Ints, tuple[str, ...]]:
    """Codes of size classes: the first limit that a value doesn't exceed, else ``above``."""
    code = np.searchsorted(np.array([limit for limit, _ in limits]), values, side="left").astype(np.int64)
    return code, (*(label for _, label in limits), above)


def by_tokens(values: Floats) -> tuple[Ints, tuple[str, ...]]:
    """``<=128`` and ``>128``."""
    return by_limit(values, ((128, "<=128"),), ">128")


def one_slice(table: Table) -> tuple[Ints, tuple[str, ...]]:
    """All rows in one slice."""
    return np.zeros(table.size, dtype=np.int64), ("all",)


def everything(table: Table) -> NDArray[np.bool_]:
    """All rows."""
    return np.ones(table.size, dtype=bool)
