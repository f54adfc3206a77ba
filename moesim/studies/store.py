"""A content-addressed store of results: one file for each setup, so that finished work is never repeated.

The key is a digest of everything that the engine reads (visits, times, sizes, capacities, policies, candidates) and of
moesim's version. A result is written under a temporary name and renamed, so a killed run leaves whole files only, and
several processes may share a store.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import MoesimError
from moesim.policies.api import Policy
from moesim.results import Result, load_result, save_result
from moesim.setup import Setup
from moesim.version import __version__


class ResultStore:
    """Results below a folder, by the digest of their setup."""

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, digest: str) -> Path:
        """Where the result of a setup is, or would be."""
        return self._folder / f"{digest}.json"

    def get(self, digest: str) -> Result | None:
        """The result of a setup, or None; a damaged file counts as none."""
        try:
            return load_result(self.path(digest))
        except MoesimError:
            return None

    def put(self, digest: str, result: Result) -> None:
        """Keep a result."""
        save_result(result, self.path(digest))


def digest_of(setup: Setup, labels: dict[str, Any]) -> str:
    """Hex digest of everything that decides a run's numbers.

    Args:
        labels: what the result also says (names, question), so that equal numbers under other names stay apart.
    """
    digest = hashlib.sha256(f"moesim {__version__}\n{json.dumps(labels, sort_keys=True)}".encode())
    _add(digest, setup)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    """Feed a value to a digest: dataclasses field by field, arrays by type, shape and bytes."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Policy):
        digest.update(json.dumps([value.family, value.describe()], sort_keys=True).encode())
    elif is_dataclass(value):
        for field in fields(value):
            digest.update(f"\n{field.name}:".encode())
            _add(digest, getattr(value, field.name))
    else:
        digest.update(repr(value).encode())
