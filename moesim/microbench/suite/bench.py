"""What a benchmark of the suite is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

#: What a program measures once: names and values, as they stand on a line of its input. Strings have no blanks.
Case = Mapping[str, int | str]
Level = Literal["quick", "full"]
Split = Literal["fit", "holdout"]
Program = Literal["host", "cuda"]


@dataclass(frozen=True)
class Sizing:
    """What the cases depend on beyond the level: CPU threads, and bytes of the file that storage is measured with."""

    cpu_threads: int
    file_bytes: int


@dataclass(frozen=True)
class Bench:
    """One benchmark.

    Attributes:
        program: which of the two programs measures it.
        measures: in a few words, for ``moesim microbench list``.
        feeds: what in the simulator rests on it.
        cases: all cases of a level, the most telling first.
        split: whether a case may be fitted.
        shares_memory: other programs slow it down even where it has its CPUs for itself.
    """

    name: str
    measures: str
    feeds: str
    cases: Callable[[Level, Sizing], Sequence[Case]]
    split: Callable[[Case], Split]
    program: Program = "host"
    shares_memory: bool = False


def case_line(case: Case) -> str:
    """A case as a line of a program's input."""
    return " ".join(f"{key}={value}" for key, value in case.items())


def case_key(case: Case) -> tuple[tuple[str, str], ...]:
    """What tells a case from others, whatever the order of its names."""
    return tuple(sorted((key, str(value)) for key, value in case.items()))
