"""Where experts lie: for each MoE layer, the logical expert and the rank of every physical slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import Fault, PolicyError
from moesim.policies.api import Policy
from moesim.policies.placement_format import read_placement_file, to_json
from moesim.policies.placement_profile import PlacementProfile

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Placement:
    """A placement as data: plain arrays, checked once.

    Attributes:
        name: what made it.
        num_experts, ranks: logical experts of a layer, and ranks that hold physical ones.
        logical, rank: the expert and the rank of each slot. [layers, slots]

    Raises:
        PolicyError: an expert without a slot, or a number out of range.
    """

    name: str
    num_experts: int
    ranks: int
    logical: Ints
    rank: Ints

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise PolicyError(faults)
        for field in ("logical", "rank"):
            array = np.ascontiguousarray(getattr(self, field), dtype=np.int64)
            array.flags.writeable = False
            object.__setattr__(self, field, array)

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.logical.shape[0])

    @property
    def num_slots(self) -> int:
        """Physical experts of a layer."""
        return int(self.logical.shape[1])

    @cached_property
    def copies(self) -> Ints:
        """Slots of each expert. [layers, experts]"""
        return np.stack([np.bincount(row, minlength=self.num_experts) for row in self.logical])

    @cached_property
    def slots_on(self) -> Ints:
        """Slots on each rank. [layers, ranks]"""
        return np.stack([np.bincount(row, minlength=self.ranks) for row in self.rank])

    @cached_property
    def slots_of(self) -> Ints:
        """The slots of each expert, ascending, repeated in a cycle to the largest number. [layers, experts, copies]"""
        most = int(self.copies.max())
        order = np.argsort(self.logical, axis=1, kind="stable")
        first = np.cumsum(self.copies, axis=1) - self.copies
        place = first[:, :, None] + np.arange(most) % self.copies[:, :, None]
        return np.take_along_axis(order, place.reshape(self.num_layers, -1), axis=1).reshape(place.shape)

    def rank_load(self, load: Floats) -> Floats:
        """Load of each rank where every copy takes an equal share. [layers, ranks]

        Args:
            load: of each expert. [layers, experts]
        """
        share = np.take_along_axis(load / self.copies, self.logical, axis=1)
        row = np.arange(self.num_layers)[:, None] * self.ranks
        flat = np.bincount((row + self.rank).ravel(), weights=share.ravel(), minlength=self.num_layers * self.ranks)
        return np.asarray(flat, dtype=np.float64).reshape(self.num_layers, self.ranks)

    def to_json(self) -> str:
        """The text of its file."""
        return to_json(self.name, self.num_experts, self.ranks, self.logical, self.rank)


def read_placement(path: Path) -> Placement:
    """A placement from its file.

    Raises:
        FileError: the file can't be read.
        PolicyError: it holds no placement.
    """
    found = read_placement_file(path)
    widths = {len(row) for row in (*found.logical, *found.rank)}
    if len(widths) != 1 or len(found.logical) != len(found.rank):
        raise PolicyError.of(str(path), "its rows differ in length", "one entry for each slot in every row")
    logical, rank = np.array(found.logical, dtype=np.int64), np.array(found.rank, dtype=np.int64)
    return Placement(found.name or path.stem, found.num_experts, found.ranks, logical, rank)


def placement_by(policy: Policy, profile: PlacementProfile, rng: np.random.Generator) -> Placement:
    """What a placement policy plans.

    Raises:
        PolicyError: the policy can't place these experts, or its plan is none.
    """
    logical, rank = policy.module.place(policy.params, profile, rng)
    return Placement(policy.name, profile.num_experts, profile.ranks, logical, rank)


def imbalance(rank_load: Floats) -> Floats:
    """The fullest rank over the mean, 1 where there is no load. [...] from [..., ranks]"""
    mean = rank_load.mean(axis=-1)
    return np.asarray(np.where(mean > 0, rank_load.max(axis=-1) / np.where(mean > 0, mean, 1.0), 1.0))


def _faults(placement: Placement) -> Sequence[Fault]:
    logical, rank = np.asarray(placement.logical), np.asarray(placement.rank)
    if logical.ndim != 2 or logical.shape != rank.shape or not logical.size:
        return [Fault(placement.name, f"needs [layers, slots] twice (got {logical.shape} and {rank.shape})")]
    faults = []
    for what, array, limit in (("expert", logical, placement.num_experts), ("rank", rank, placement.ranks)):
        if array.min() < 0 or array.max() >= limit:
            faults.append(Fault(placement.name, f"names {what} {array.max()} of {limit}", f"0 to {limit - 1}"))
    if not faults:
        for layer, row in enumerate(logical):
            missing = np.flatnonzero(np.bincount(row, minlength=placement.num_experts) == 0)
            if len(missing):
                told = f"layer {layer}: expert {missing[0]} has no slot ({len(missing)} have none)"
                faults.append(Fault(placement.name, told, "every expert needs a slot"))
    return faults
