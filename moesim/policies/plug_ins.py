"""Policies from outside of this package: a user's own file, and what other packages offer as entry points.

A file is named in place of a policy (``caching: ./mine.py``) and is a policy module like any here. Its code runs only
where that was allowed; :func:`read_file` looks at its text alone. An entry point of the group ``moesim.policies`` is
called ``FAMILY.NAME`` and leads to a module; one that can't be loaded is an error, never left out.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from moesim.documents import read_text
from moesim.errors import PolicyError

GROUP = "moesim.policies"
#: What a user's file may be called in a scenario.
SUFFIX = ".py"


def is_file(name: str) -> bool:
    """Whether a scenario's policy name means a file."""
    return name.endswith(SUFFIX)


def digest_of_file(path: Path) -> str:
    """Of a policy file, so that results of another text are told apart."""
    return hashlib.sha256(read_text(path).encode()).hexdigest()


def read_file(path: Path) -> ast.Module:
    """The syntax tree of a policy file; nothing of it runs.

    Raises:
        FileError: it can't be read.
        PolicyError: it is not Python, with the line.
    """
    try:
        return ast.parse(read_text(path), str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise PolicyError.of(f"{path}:{line}", f"is not Python: {getattr(error, 'msg', error)}") from None


def functions_in(tree: ast.Module) -> dict[str, list[str]]:
    """The functions of a file and the names of their arguments."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: [argument.arg for argument in node.args.args] for node in found}


def run_file(path: Path) -> ModuleType:
    """Run a policy file as a module of its own; the same text is run once.

    Raises:
        FileError, PolicyError: it can't be read, or fails when it is run.
    """
    return _run(path.resolve(), digest_of_file(path))


@cache
def _run(path: Path, digest: str) -> ModuleType:
    name = f"moesim_policy_{path.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PolicyError.of(str(path), "is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba and pickle look modules up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PolicyError.of(str(path), f"fails when it is run: {type(error).__name__}: {error}") from None
    return module


def plug_ins(family: str) -> dict[str, EntryPoint]:
    """Entry points of a family by policy name.

    Raises:
        PolicyError: two packages offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in _points():
        kind, _, name = point.name.partition(".")
        if kind == family:
            if name in found:
                raise PolicyError.of(
                    f"entry point {point.name}", f"is offered twice: {found[name].value}, {point.value}"
                )
            found[name] = point
    return found


def check_names(families: tuple[str, ...]) -> None:
    """Refuse entry points whose names say no family.

    Raises:
        PolicyError: with the name.
    """
    for point in _points():
        if point.name.partition(".")[0] not in families or not point.name.partition(".")[2]:
            raise PolicyError.of(
                f"entry point {point.name!r} of {GROUP}",
                "is not called FAMILY.NAME",
                "a family: " + ", ".join(families),
            )


def load_plug_in(point: EntryPoint) -> ModuleType:
    """The module behind an entry point.

    Raises:
        PolicyError: it can't be imported, or is no module.
    """
    try:
        module = point.load()
    except Exception as error:
        told = f"can't be loaded from {point.value}: {type(error).__name__}: {error}"
        raise PolicyError.of(f"entry point {point.name}", told, "mend or uninstall that package") from None
    if not isinstance(module, ModuleType):
        raise PolicyError.of(f"entry point {point.name}", f"{point.value} is no module", 'name = "package.module"')
    return module


def versions() -> list[str]:
    """What is installed that offers policies, so that results of another version are told apart."""
    return sorted(f"{point.name} = {point.value} {point.dist.version if point.dist else ''}" for point in _points())


def _points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))
