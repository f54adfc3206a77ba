"""A content-addressed store of results: one file for each scenario, so that finished work is never repeated.

The key is a digest of all that decides a run's numbers: the scenario with its defaults filled in, the bytes of every
file that it names, and moesim's own code and cards. A result is written under a temporary name and renamed, so a
killed run leaves whole files only. A lock per key, which the system drops when its holder dies, keeps two processes
from running the same point at once; where locks can't be had, both run it and write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from moesim.errors import MoesimError
from moesim.policies import plug_ins
from moesim.results.result import SCHEMA_VERSION, load_versioned, write_text
from moesim.results.saved import SavedResult, load_saved
from moesim.scenario.load import ScenarioFile

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_CHUNK_BYTES = 2**22
_PACKAGE = Path(__file__).parent.parent


class Failure(BaseModel):
    """A point that did not run, kept beside the results: every fault as place, message, hint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: str = SCHEMA_VERSION
    kind: Literal["failure"] = "failure"
    cause: Literal["input", "crash"]
    faults: list[tuple[str, str, str]]


class ResultStore:
    """Results below a folder, by the key of their scenario."""

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, key: str) -> Path:
        """Where the result of a key is, or would be."""
        return self._folder / f"{key}.json"

    def get(self, key: str) -> SavedResult | None:
        """The result of a key, or None; a damaged file counts as none."""
        try:
            return load_saved(self.path(key))
        except MoesimError:
            return None

    def put(self, key: str, result: SavedResult) -> None:
        """Keep a result, and forget that the point ever failed."""
        write_text(self.path(key), result.to_json())
        self._failure_path(key).unlink(missing_ok=True)

    def failure(self, key: str) -> Failure | None:
        """Why a key did not run, or None."""
        try:
            return load_versioned(self._failure_path(key), Failure)
        except MoesimError:
            return None

    def put_failure(self, key: str, failure: Failure) -> None:
        """Keep a failure."""
        write_text(self._failure_path(key), failure.model_dump_json(indent=1) + "\n")

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool) -> Iterator[bool]:
        """Hold a key while it runs.

        Args:
            wait: until another process that holds it is done; else yield False at once.
        """
        if fcntl is None:
            yield True
            return
        path = self._folder / ".locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)

    def _failure_path(self, key: str) -> Path:
        return self._folder / f"{key}.failed.json"


def key_of(file: ScenarioFile) -> str:
    """Hex digest of everything that decides a run's numbers (see the module).

    Raises:
        OSError: a file that the scenario names can't be read.
    """
    scenario = file.scenario.model_dump(mode="json")
    digests = {name: _digest_of(file.folder / name) for name in sorted(set(texts_of(scenario)))}
    named = {name: digest for name, digest in digests.items() if digest}
    code = file.code if any(map(plug_ins.is_file, named)) else ""  # what was refused may be allowed the next time
    text = json.dumps([code_digest(), plug_ins.versions(), scenario, named, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def texts_of(value: Any) -> Iterator[str]:
    """Every text of a scenario: each may name a file."""
    if isinstance(value, Mapping):
        for below in value.values():
            yield from texts_of(below)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, str) and value:
        yield value


@cache
def code_digest() -> str:
    """Of moesim's own sources and cards: another version never takes this one's results for its own."""
    digest = hashlib.sha256()
    for path in sorted(path for suffix in ("py", "yaml") for path in _PACKAGE.rglob(f"*.{suffix}")):
        digest.update(f"{path.relative_to(_PACKAGE)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest_of(path: Path) -> str:
    """Of a file's bytes, or of those of a trace's folder; "" where there is neither."""
    try:
        files = [path] if path.is_file() else sorted(path.glob("*")) if any(path.glob("*.npy")) else []
    except (OSError, ValueError):  # no possible name of a file
        return ""
    if not files:
        return ""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return _digest_of_files(tuple(stats))


@cache
def _digest_of_files(stats: tuple[tuple[str, int, int], ...]) -> str:
    """Read once for each size and time of change."""
    digest = hashlib.sha256()
    for name, size, _ in stats:
        digest.update(f"{Path(name).name} {size}\n".encode())
        with open(name, "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
