"""A machine's card: what moesim's own microbenchmarks measured on it, fitted, with the raw file that it rests on.

``moesim microbench fit`` writes it, ``moesim validate card`` holds it against rows that were not fitted. Its parts can
be named in a scenario like any other card: ``hardware: {cpu: MACHINE, storage: MACHINE}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moesim import units
from moesim.hardware.fits import Residuals
from moesim.hardware.sourced import Kind
from moesim.hardware.specs import CpuSpec, GpuSpec, LinkSpec, Spec, StorageSpec

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: Dimensions that constants have; none of their units belongs to two.
_DIMENSIONS = ("time", "bandwidth", "compute_rate", "io_rate", "bytes")


class Origin(BaseModel):
    """The result that a card was fitted from, and the suite that measured it: a hash of each program's sources."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    result_sha256: Sha256
    suite_sha256: dict[str, Sha256]
    date: str
    level: str
    status: str
    rows: int
    unfit_rows: int


class MachineFit(BaseModel):
    """The constants of one form, for one group of a benchmark's rows.

    ``constants``: quantities with their unit, or plain numbers without one; in Python SI numbers. ``assumed``: those on
    which the rows have no bearing. ``fitted_range``: column -> least and largest value among the fitted rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bench: str
    group: str
    form: str
    constants: dict[str, float]
    assumed: list[str] = []
    kind: Kind
    source: str = Field(min_length=1)
    rows: int
    fitted_range: dict[str, tuple[float, float]]
    residuals: Residuals

    @field_validator("constants", mode="before")
    @classmethod
    def _with_units(cls, constants: Mapping[str, str | float]) -> dict[str, float]:
        return {name: _si(value) if isinstance(value, str) else value for name, value in constants.items()}


class MachineSpec(Spec):
    """A measured machine: its parts as cards, and the fits behind them. A part that was not measured is None."""

    PARTS: ClassVar[tuple[str, ...]] = ("cpu", "storage", "link", "gpu")

    origin: Origin
    cpu: CpuSpec | None = None
    storage: StorageSpec | None = None
    link: LinkSpec | None = None
    gpu: GpuSpec | None = None
    fits: list[MachineFit]


def _si(text: str) -> float:
    for dimension in _DIMENSIONS:
        if text.partition(" ")[2] in units.UNITS[dimension]:
            return units.parse(text, dimension)
    raise ValueError("a constant needs a unit that moesim knows")
