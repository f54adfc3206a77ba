"""Kernels compiled around a caching policy, and where they are cached.

numba compiles a kernel the first time that it is called, and keeps the machine code beside a generated source file in
the user's cache folder: ``MOESIM_CACHE_DIR``, else ``$XDG_CACHE_HOME/moesim``, else ``~/.cache/moesim``. A file's name
carries a hash of all that went into it, so nothing in that folder is ever changed, two processes may write the same
file at once, and the whole folder may be deleted at any time. Where it can't be written, kernels are compiled in
memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from moesim.errors import CompileError
from moesim.policies.api import Policy
from moesim.replay.kernels import policy as stand_ins
from moesim.replay.kernels.blocks import distinct, tally, unpack
from moesim.replay.kernels.distances import lookup_distances, use_distances
from moesim.replay.kernels.fewest import fewest_misses
from moesim.replay.kernels.retime import retime
from moesim.replay.kernels.sequential import sequential
from moesim.replay.kernels.serving import serve
from moesim.replay.kernels.timeline import timeline
from moesim.replay.kernels.visits import by_visit
from moesim.replay.source import module_source

_WITH_A_POLICY = (sequential, by_visit)
_WITHOUT = (unpack, distinct, tally, use_distances, lookup_distances, fewest_misses)
#: Kernels without a policy that have a module of their own, so that a change of one compiles no other.
_ALONE: Mapping[str, Callable[..., Any]] = {"serve": serve, "retime": retime}
#: Small functions are inlined, policies' too, which makes heaps half as fast again; these are called.
_CALLED = tuple(f"moesim.replay.kernels.{name}" for name in ("serving", "serving_steps", "serving_costs"))
#: What a caching policy may bring.
_CONTRACT = ("on_hit", "on_insert", "on_evict", "victim", "admit", "on_visit", "before_insert", "on_bypass")
#: What a generated module is made of: where from, its entry points, and the policies' functions.
_Parts = tuple[str, Sequence[Callable[..., Any]], Mapping[str, Any]]
_in_use: set[ModuleType] = set()
_timelines: set[tuple[ModuleType, ModuleType | None, ModuleType | None]] = set()


def cache_folder() -> Path:
    """Where compiled code is kept."""
    given = os.environ.get("MOESIM_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moesim"


def is_compiled(policy: Policy) -> bool:
    """Whether this process has kernels with this policy at hand."""
    return policy.module in _in_use


def is_timeline_cached(gpu: Policy, host: Policy | None, on_miss: Policy | None) -> bool:
    """Whether the kernel with a clock is compiled for these policies: in this process, or in the cache folder."""
    chosen = gpu.module, host.module if host else None, on_miss.module if on_miss else None
    if chosen in _timelines:
        return True
    name, _ = _named(*_timeline_parts(*chosen))
    try:
        return any((cache_folder() / "__pycache__").glob(f"{name}.timeline-*.nbi"))
    except (OSError, RuntimeError):  # no home, or none that can be read
        return False


def run(policy: Policy | None, kernel: str, *arguments: Any) -> Any:
    """Call a kernel, compiled; ``policy`` is None for the kernels that need none.

    Raises:
        CompileError: the policy uses what numba can't compile, or indexes outside of its state.
    """
    module = _alone(kernel) if kernel in _ALONE else _kernels(None if policy is None else policy.module)
    return _call(module, kernel, "moesim" if policy is None else f"policy {policy.name!r}", arguments)


def run_timeline(gpu: Policy, host: Policy | None, on_miss: Policy | None, *arguments: Any) -> None:
    """Call the kernel with a clock.

    Args:
        gpu, host: caching policies; ``host`` is None where there is no host memory in front of a drive.
        on_miss: with a ``decide`` that may choose the CPU; None where everything is fetched.

    Raises:
        CompileError: as for :func:`run`.
    """
    policies = [policy for policy in (gpu, host, on_miss) if policy is not None]
    chosen = gpu.module, host.module if host else None, on_miss.module if on_miss else None
    module = _timeline(*chosen)
    _timelines.add(chosen)
    names = " or ".join(repr(policy.name) for policy in policies)
    _call(module, "timeline", f"policy {names}", arguments)


def _call(module: ModuleType, kernel: str, blamed: str, arguments: Iterable[Any]) -> Any:
    from numba.core.errors import NumbaError

    try:
        return getattr(module, kernel)(*_flat(arguments))
    except NumbaError as error:
        told = f"numba can't compile it: {error}"
        raise CompileError.of(blamed, told, "the subset is described in policies.api") from None
    except IndexError:  # checked in policies from outside
        told = "its compiled functions index outside of its state"
        raise CompileError.of(blamed, told, "no variable may count from the end: state[n - 1] for state[i]") from None


def _flat(arguments: Iterable[Any]) -> Iterator[Any]:
    """Arguments as the generated kernels take them: a dataclass's arrays in place of the dataclass."""
    for argument in arguments:
        if is_dataclass(argument):
            yield from (getattr(argument, field.name) for field in fields(argument))
        else:
            yield argument


@cache
def _alone(kernel: str) -> ModuleType:
    return _load(kernel, (_ALONE[kernel],), {})


@cache
def _kernels(policy: ModuleType | None) -> ModuleType:
    if policy is None:
        return _load("shared", _WITHOUT, {})
    module = _load(_short(policy), _WITH_A_POLICY, _functions(policy))
    _in_use.add(policy)
    return module


@cache
def _timeline(gpu: ModuleType, host: ModuleType | None, on_miss: ModuleType | None) -> ModuleType:
    return _load(*_timeline_parts(gpu, host, on_miss))


def _timeline_parts(gpu: ModuleType, host: ModuleType | None, on_miss: ModuleType | None) -> _Parts:
    own, origin = _functions(gpu), f"timeline_{_short(gpu)}"
    if host is not None:
        own |= {f"host_{name}": found for name, found in _functions(host).items()} | {"has_host": stand_ins.granted}
        origin += f"_{_short(host)}"
    if on_miss is not None:
        own |= {"decide": vars(on_miss)["decide"], "may_use_cpu": stand_ins.granted}
        origin += f"_{_short(on_miss)}"
    return origin, (timeline,), own


def _functions(policy: ModuleType) -> dict[str, Any]:
    """A caching policy's functions that kernels call, by name."""
    found = {name: found for name in _CONTRACT if isinstance(found := vars(policy).get(name), FunctionType)}
    return found | ({"hears_visits": stand_ins.granted} if "on_visit" in found else {})


def _short(policy: ModuleType) -> str:
    return policy.__name__.rpartition(".")[2]


def _load(origin: str, entries: Sequence[Callable[..., Any]], own: Mapping[str, Any]) -> ModuleType:
    """The generated module, from the cache folder where that works."""
    name, source = _named(origin, entries, own)
    try:
        return _imported(name, _written(cache_folder() / f"{name}.py", f"CACHE = True\n{source}"))
    except (OSError, RuntimeError):  # numba says RuntimeError where it finds no place to cache in
        return _in_memory(name, f"CACHE = False\n{source}")


def _named(origin: str, entries: Sequence[Callable[..., Any]], own: Mapping[str, Any]) -> tuple[str, str]:
    """The name of a generated module, and its source."""
    functions = [entry for entry in entries if isinstance(entry, FunctionType)]
    from_outside = any(not function.__module__.startswith("moesim.") for function in own.values())
    source = module_source(functions, own, stand_ins.__name__, origin, _CALLED, checked=from_outside)
    return f"moesim_{origin}_{_digest(source)}", source


def _digest(source: str) -> str:
    """Of all that the machine code depends on."""
    import llvmlite.binding
    import numba

    parts = (source, numba.__version__, platform.python_version(), llvmlite.binding.get_host_cpu_name())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def _written(path: Path, text: str) -> Path:
    """The file, written under another name and renamed; one that is there already is complete."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".draft")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # Older versions of numba compare the file's time with the one that they cached: make it the same for everybody.
        os.utime(draft, (0, 0))
        os.replace(draft, path)
    return path


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # numba looks a cached function's module up here
    spec.loader.exec_module(module)
    return module


def _in_memory(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"<{name}>", "exec"), vars(module))
    return module
