"""Kernels as Python runs them: nothing to compile, so that every policy can be tried with every other."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from moesim.replay import compile as compiler

IMPORT, PLAIN = "from numba import njit\n", "def njit(**_):\n    return lambda function: function\n"


@contextmanager
def interpreted_kernels() -> Iterator[None]:
    """Inside, the kernels with a clock run interpreted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "_timeline", _timeline)
        patch.setattr(compiler, "_alone", _alone)
        yield


@cache
def _timeline(*policies: ModuleType | None) -> ModuleType:
    return _plain(*compiler._timeline_parts(*policies))


@cache
def _alone(kernel: str) -> ModuleType:
    return _plain(kernel, (compiler._ALONE[kernel],), {})


def _plain(*parts: Any) -> ModuleType:
    name, source = compiler._named(*parts)
    return compiler._in_memory(f"interpreted_{name}", "CACHE = False\n" + source.replace(IMPORT, PLAIN))
