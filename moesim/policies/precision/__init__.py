"""Precision policies, one file each: in how many bits each expert is stored. Their contract::

    class Params(PolicyParams)
    needs_training = True                 where `stored.uses` is read
    def assign(params, stored) -> names   the precision of each key, as `moesim.models.precision` names them. [keys]
    or def planes(params) -> Planes       experts as nested bit-planes

Bits below the scenario's own precision change what the model says, and a Result counts the gate weight that they
concern. Read ``uniform`` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StoredExperts:
    """What a precision policy knows.

    Attributes:
        num_layers, num_experts: keys count (layer, expert) pairs.
        precision: the scenario's own.
        folder: of the scenario's file; paths in parameters are relative to it.
        uses: activations of each key in the training split, where there is one. [keys]
    """

    num_layers: int
    num_experts: int
    precision: str
    folder: Path
    uses: NDArray[np.int64] | None

    @property
    def num_keys(self) -> int:
        """(layer, expert) pairs."""
        return self.num_layers * self.num_experts


@dataclass(frozen=True)
class Planes:
    """Experts in nested bit-planes: the first has ``bits[0]`` bits, each further one adds up to the next width.

    Attributes:
        bits: widths, ascending.
        shares: of a token's uses of experts, in each width.
        hottest_first: planes are asked for by the tokens that wait for them, instead of expert by expert.
    """

    bits: tuple[int, ...]
    shares: tuple[float, ...]
    hottest_first: bool
