"""The errors that moesim raises for its users.

Every one of them is a :class:`MoesimError`: wrong input, never a bug. It carries a list of
:class:`Fault`, so that all that is wrong with a file is said at once. Only ``cli`` prints and exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A hint lists at most so many names.
MAX_LISTED = 16


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it is, what it is, and one thing to try."""

    place: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n    hint: {self.hint}" if self.hint else head


class MoesimError(Exception):
    """Wrong input. ``faults`` holds everything that was found, in the order of the input."""

    def __init__(self, faults: Sequence[Fault] | Fault):
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @classmethod
    def of(cls, place: str, message: str, hint: str = "") -> MoesimError:
        """An error with one fault, of the class that it is called on."""
        return cls(Fault(str(place), message, hint))


class FileError(MoesimError):
    """A file that is missing, unreadable, too large, truncated or not what it claims to be."""


class ScenarioError(MoesimError):
    """A scenario whose content is wrong, or whose parts don't fit together."""


class CardError(MoesimError):
    """A hardware or language-model card that is wrong."""


class TraceError(MoesimError):
    """A routing trace that is wrong, or that doesn't fit the language model."""


class PolicyError(MoesimError):
    """A policy that is unknown, wrongly parametrised, or that breaks the contract of ``policies.api``."""


class CompileError(PolicyError):
    """A policy that can't be compiled, or that does what compiled code can't; the SimPy engine may still run it."""


class ResultError(MoesimError):
    """A saved result that can't be read by this version."""


class MicrobenchError(MoesimError):
    """A microbenchmark that can't be built or run, or a result of one that is wrong."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known name closest to ``name``, or (the first of) all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f", … ({len(names)} in all)" if len(names) > MAX_LISTED else ""
    return "known: " + ", ".join(names[:MAX_LISTED]) + more
