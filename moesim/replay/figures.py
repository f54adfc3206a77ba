"""What both engines say of a run: why the GPU waits, what a link did, what became of prefetches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Cause(IntEnum):
    """What the GPU waits for: a transfer, those ahead of it, room for it, or the CPU."""

    PCIE = 0
    PCIE_QUEUE = 1
    FLASH = 2
    FLASH_QUEUE = 3
    ROOM = 4
    CPU = 5
    CPU_QUEUE = 6


class Span(NamedTuple):
    """What a server did: a transfer of ``key``, in the form ``form``, that ``visit`` wanted; or a piece of it."""

    key: int
    visit: int
    is_demand: bool
    start_s: float
    end_s: float
    form: int = 0
    piece: int = 0
    pieces: int = 1

    @property
    def is_last(self) -> bool:
        """Whether the transfer was done with it."""
        return self.piece == self.pieces - 1

    def bytes_of(self, whole: int) -> int:
        """Its share of a transfer of so many bytes: shares of all pieces add up to them."""
        return whole * (self.piece + 1) // self.pieces - whole * self.piece // self.pieces


@dataclass(frozen=True)
class Moves:
    """Spans of a server as columns; without ``piece`` and ``pieces`` each is a whole transfer. [spans] each"""

    key: NDArray[np.int64]
    visit: NDArray[np.int64]
    is_demand: NDArray[np.bool_]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    form: NDArray[np.int64]
    piece: NDArray[np.int64] | None = None
    pieces: NDArray[np.int64] | None = None

    @property
    def is_last(self) -> NDArray[np.bool_]:
        """Whether a transfer was done with the span. [spans]"""
        if self.piece is None or self.pieces is None:
            return np.ones(len(self.key), dtype=np.bool_)
        return np.asarray(self.piece == self.pieces - 1)

    def bytes_of(self, whole: NDArray[np.int64]) -> NDArray[np.int64]:
        """As in :class:`Span`, of each. [spans] from [spans]"""
        if self.piece is None or self.pieces is None:
            return whole
        return np.asarray(whole * (self.piece + 1) // self.pieces - whole * self.piece // self.pieces)

    def __len__(self) -> int:
        return len(self.key)


@dataclass
class PrefetchCounts:
    """Proposals by what became of them.

    ``proposed = redundant + withdrawn + no_room + started`` and ``started = used + late + wasted``, once a run is over.

    Attributes:
        proposed: by the policy.
        redundant: already there or on its way when proposed.
        withdrawn: never started: its visit's router spoke first (and either dropped it or made it a demand).
        no_room: never started: nothing could leave for it, or the caching policy would not keep it.
        started: transfers to the GPU that began as prefetches.
        used: arrived before it was asked for, and was asked for while it stayed.
        late: asked for while it was under way.
        wasted: left, or was left over at the end, without ever being asked for.
    """

    proposed: int = 0
    redundant: int = 0
    withdrawn: int = 0
    no_room: int = 0
    started: int = 0
    used: int = 0
    late: int = 0
    wasted: int = 0
