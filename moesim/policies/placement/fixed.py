"""The placement that a file holds, as ``moesim optimum`` or another tool wrote it.

Source: the format stands in :mod:`moesim.policies.placement_format`.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from moesim.errors import PolicyError
from moesim.policies.api import Placed, PolicyParams
from moesim.policies.placement_format import read_placement_file
from moesim.policies.placement_profile import PlacementProfile

replicates = True


class Params(PolicyParams):
    """Which file."""

    file: str = Field("placement.json", min_length=1, description="relative to the scenario's file")


def place(params: Params, profile: PlacementProfile, rng: np.random.Generator) -> Placed:
    """What the file says, where it fits the model and the machine."""
    found = read_placement_file(profile.folder / params.file)
    wanted = {"num_experts": profile.num_experts, "ranks": profile.ranks, "layers": profile.num_layers}
    given = {"num_experts": found.num_experts, "ranks": found.ranks, "layers": len(found.logical)}
    for name, value in wanted.items():
        if given[name] != value:
            told = f"{params.file} has {name.replace('_', ' ')} {given[name]}, and this run {value}"
            raise PolicyError.of("file", told, "a placement made for this model and this machine")
    if {len(row) for row in (*found.logical, *found.rank)} != {len(found.logical[0])}:
        raise PolicyError.of(
            "file", f"{params.file}: its rows differ in length", "one entry for each slot in every row"
        )
    return np.array(found.logical, dtype=np.int64), np.array(found.rank, dtype=np.int64)
