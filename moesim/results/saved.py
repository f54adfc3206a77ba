"""Saved results of single runs, whatever kind of run it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moesim.errors import FileError
from moesim.results.parallel import ParallelResult
from moesim.results.result import Result, load_versioned
from moesim.results.serving import ServingResult

#: What a single scenario can leave behind.
SavedResult = Result | ServingResult | ParallelResult
#: The kind stands behind the schema's version, at the top of the file.
_HEAD_BYTES = 200
_KIND = re.compile(r'"kind":\s*"(\w+)"')


def load_saved(path: Path) -> SavedResult:
    """Read the result of a run.

    Raises:
        FileError: the file can't be read.
        ResultError: it isn't a result, or one of a newer major version.
    """
    match kind_of(path):
        case "serving":
            return load_versioned(path, ServingResult)
        case "parallel":
            return load_versioned(path, ParallelResult)
        case _:
            return load_versioned(path, Result)


def kind_of(path: Path) -> str:
    """What kind of run a file says that it is from; "" of a run on one machine.

    Raises:
        FileError: it can't be read.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise FileError.of(str(path), f"can't be read: {error.strerror}") from None
    found = _KIND.search(head)
    return found[1] if found else ""


def figures_of(result: SavedResult) -> dict[str, Any]:
    """A result's headline, limits and evidence as flat columns: ``ttft_s.p50`` -> number, text or None."""
    evidence = {f"evidence.{kind}": share for kind, share in result.evidence_shares.items()}
    bound = {"bound_by": result.bottleneck.bound_by, "bound_by_share": result.bottleneck.share}
    return dict(_flat(result.headline.model_dump(mode="json"))) | bound | evidence


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}", value
