"""What a placement policy knows: the machine's ranks, and how experts were used in a training split."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlacementProfile:
    """The input of ``place``. A *rank* holds experts: a GPU, or the GPUs that share each expert's matrices.

    Attributes:
        num_layers, num_experts: of the language model's MoE layers.
        node_of_rank: the node of each rank, ascending. [ranks]
        slots_per_rank: physical experts that each rank holds of a layer (where a policy deals them out evenly).
        groups: groups of experts that a router limits a token to; 1 where it knows none.
        sample: experts of the profiled tokens, -1 where there is none. [tokens, layers, top_k]
        bandwidth: bytes per second between ranks, infinite on the diagonal. [ranks, ranks]
        folder: where the scenario stands, for files that it names.
    """

    num_layers: int
    num_experts: int
    node_of_rank: Ints
    slots_per_rank: int
    groups: int = 1
    sample: Ints = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.int64))
    bandwidth: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    folder: Path = Path()

    @property
    def ranks(self) -> int:
        """How many ranks hold experts."""
        return len(self.node_of_rank)

    @property
    def num_nodes(self) -> int:
        """How many nodes the ranks lie on."""
        return int(self.node_of_rank.max()) + 1

    @property
    def num_slots(self) -> int:
        """Physical experts of a layer, over all ranks."""
        return self.ranks * self.slots_per_rank

    @cached_property
    def load(self) -> Floats:
        """Tokens of each expert in the sample. [layers, experts]"""
        load = np.zeros((self.num_layers, self.num_experts))
        for layer in range(self.num_layers):
            used = self.sample[:, layer]
            load[layer] = np.bincount(used[used >= 0].ravel(), minlength=self.num_experts)
        return load

    def transitions(self, layer: int) -> Floats:
        """Tokens that use expert e in ``layer`` and f in the next one. [experts, experts]"""
        return self._pairs(self.sample[:, layer], self.sample[:, layer + 1])

    def together(self, layer: int) -> Floats:
        """Tokens that use experts e and f in ``layer``; zero on the diagonal. [experts, experts]"""
        pairs = self._pairs(self.sample[:, layer], self.sample[:, layer])
        np.fill_diagonal(pairs, 0.0)
        return pairs

    def _pairs(self, first: Ints, second: Ints) -> Floats:
        """How many tokens have each (expert of ``first``, expert of ``second``). Both [tokens, top_k]"""
        a, b = first[:, :, None], second[:, None, :]
        code = (a * self.num_experts + b)[(a >= 0) & (b >= 0)]
        return np.bincount(code, minlength=self.num_experts**2).reshape(2 * [self.num_experts]).astype(np.float64)
