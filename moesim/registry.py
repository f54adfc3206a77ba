"""Names to things: policies by module, cards by file. Adding one is adding one file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from moesim.errors import CardError, MoesimError, nearest


def name_of_module(module: str) -> str:
    """``moesim.policies.prefetch.next_gate`` -> ``next-gate``: the name that a scenario uses."""
    return module.rpartition(".")[2].replace("_", "-")


@cache
def modules_in(package: str) -> dict[str, str]:
    """Name -> import path of every module of a package, sorted by name; nothing is imported."""
    path = importlib.import_module(package).__path__
    found = (f"{package}.{info.name}" for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
    return {name_of_module(module): module for module in sorted(found)}


def load_module(package: str, name: str, error: type[MoesimError]) -> ModuleType:
    """The module behind a name.

    Raises:
        error: no such name; the hint suggests the nearest one.
    """
    known = modules_in(package)
    if name not in known:
        raise error.of("", f"unknown name {name!r}", nearest(name, known))
    return importlib.import_module(known[name])


@cache
def card_paths(folder: Path) -> dict[str, Path]:
    """Name -> path of every YAML card below a folder, sorted by name."""
    return {path.stem: path for path in sorted(folder.rglob("*.yaml"), key=lambda path: path.stem)}


def card_path(folder: Path, name: str) -> Path:
    """The card of that name.

    Raises:
        CardError: no such card; the hint suggests the nearest one.
    """
    known = card_paths(folder)
    if name not in known:
        raise CardError.of("", f"unknown name {name!r}", nearest(name, known))
    return known[name]
