"""The file of a placement: JSON that the policy ``fixed`` reads, and that a placement writes.

``{"format": "moesim-placement/1", "num_experts": E, "ranks": G, "logical": [[...]], "rank": [[...]]}``: for each MoE
layer a row with the logical expert, and one with the rank, of every physical slot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moesim.documents import read_text
from moesim.errors import PolicyError

FORMAT = "moesim-placement/1"
MAX_BYTES = 2**28
Ints = NDArray[np.int64]


class PlacementFile(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["moesim-placement/1"] = "moesim-placement/1"
    name: str = ""
    num_experts: int = Field(ge=1)
    ranks: int = Field(ge=1)
    logical: list[list[int]] = Field(min_length=1)
    rank: list[list[int]] = Field(min_length=1)


def to_json(name: str, num_experts: int, ranks: int, logical: Ints, rank: Ints) -> str:
    """The text of a placement's file: a line for each layer."""
    head = {"format": FORMAT, "name": name, "num_experts": num_experts, "ranks": ranks}
    rows = {"logical": logical.tolist(), "rank": rank.tolist()}
    lines = [f' "{key}": {json.dumps(value)}' for key, value in head.items()]
    for key, layers in rows.items():
        listed = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in layers)
        lines.append(f' "{key}": [\n  {listed}]')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_placement_file(path: Path) -> PlacementFile:
    """Read a placement's file.

    Raises:
        FileError: it can't be read.
        PolicyError: it is no placement.
    """
    try:
        data: Any = json.loads(read_text(path, MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise PolicyError.of(str(path), f"is not JSON: {str(error).partition(';')[0]}") from None
    try:
        return PlacementFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        told = f"is no placement: {place or 'top level'}: {first['msg']}"
        raise PolicyError.of(
            str(path), told, f'write {{"format": "{FORMAT}", ...}} as Placement.to_json does'
        ) from None
