"""A schedule: who stays how long, and what is fetched when, decided beforehand for one workload.

It is data, keyed by visit. Policy ``scheduled`` replays it in both engines, so that optimum and heuristic are timed
alike. A schedule is bound to its workload by a checksum and refused for any other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import FileError, ScenarioError
from moesim.policies.api import Candidates, load
from moesim.setup.setup import Setup, TierSetup
from moesim.traces.array_files import read_npz, text_of
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
FORMAT = "moesim-schedule/1"
_ARRAYS = ("keep_until", "proposal_start", "proposal_key", "proposal_target")


@dataclass(frozen=True)
class Schedule:
    """Decisions for one workload and cache size.

    Attributes:
        purpose: what it is the answer to, as in "fewest fetches".
        trace_sha256: of the trace's file, for people.
        visits_sha256: of the lookups of all visits: what it is bound to.
        capacity_bytes: the GPU's expert cache that it is for.
        rule: the capacity rule that it is for.
        keep_until: for each activation the number of the activation until which its expert is kept; of those beyond the
            last one, the largest leaves first. [activations]
        proposals: what to fetch ahead of use, by visit.
    """

    purpose: str
    trace_sha256: str
    visits_sha256: str
    capacity_bytes: int
    rule: str
    keep_until: Ints
    proposals: Candidates

    def arrays(self) -> dict[str, Ints]:
        """Every array by its name in the file."""
        proposed = self.proposals
        return dict(zip(_ARRAYS, (self.keep_until, proposed.start, proposed.key, proposed.target), strict=True))


def digest_of(visits: Visits) -> str:
    """Hex digest of who is asked for in each visit, in which order."""
    digest = hashlib.sha256(f"{visits.num_layers} {visits.num_experts}\n".encode())
    for array in (visits.lookup_start, visits.lookup_key, visits.activation_start, visits.activation_key):
        digest.update(np.ascontiguousarray(array, dtype="<i8").data)
    return digest.hexdigest()


def no_proposals(visits: Visits) -> Candidates:
    """Nothing is fetched ahead of use."""
    none = np.zeros(0, dtype=np.int64)
    return Candidates(np.zeros(visits.num_visits + 1, dtype=np.int64), none, none)


def with_schedule(setup: Setup, schedule: Schedule) -> Setup:
    """The setup under a schedule in place of its own caching and prefetching."""
    gpu = TierSetup(load("caching", "scheduled"), setup.gpu.capacity_bytes)
    visits = replace(setup.visits, keep_until=schedule.keep_until)
    return replace(setup, visits=visits, gpu=gpu, candidates=schedule.proposals)


def save_schedule(schedule: Schedule, path: Path) -> None:
    """Write a schedule to an ``.npz`` file, under a temporary name first.

    Raises:
        FileError: the place can't be written.
    """
    facts = {name: getattr(schedule, name) for name in _FACTS}
    content = io.BytesIO()
    texts = {"format": np.array(FORMAT), "facts": np.array(json.dumps(facts))}
    np.savez_compressed(content, allow_pickle=False, **texts, **schedule.arrays())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
            draft.write(content.getvalue())
        os.chmod(draft.name, 0o644)
        os.replace(draft.name, path)
    except OSError as error:
        raise FileError.of(str(path), f"can't be written: {error.strerror}", "name another file") from None


def load_schedule(path: Path) -> Schedule:
    """Read a schedule; whether it fits a workload is checked by :func:`check_schedule`.

    Raises:
        FileError: missing, damaged, or not a schedule of this format.
    """
    arrays, place = read_npz(path), str(path)
    found = text_of(arrays, "format", place)
    if found != FORMAT:
        raise FileError.of(f"{place}: format", f"must be {FORMAT!r} (got {found[:40]!r})", "write it with this moesim")
    facts = _facts(text_of(arrays, "facts", place), place)
    columns = {}
    for name in _ARRAYS:
        array = arrays.get(name)
        if array is None or array.ndim != 1 or array.dtype.kind != "i":
            raise FileError.of(f"{place}: {name}", "must be a row of integers", "write it again")
        columns[name] = array.astype(np.int64)
    keep_until, start, key, target = columns.values()
    if (
        not len(start)
        or start[0] != 0
        or start[-1] != len(key)
        or len(key) != len(target)
        or (np.diff(start) < 0).any()
    ):
        raise FileError.of(f"{place}: proposal_start", "does not fit the proposals", "write it again")
    return Schedule(keep_until=keep_until, proposals=Candidates(start, key, target), **facts)


_FACTS = {"purpose": str, "trace_sha256": str, "visits_sha256": str, "capacity_bytes": int, "rule": str}


def _facts(text: str, place: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    right = isinstance(facts, dict) and all(isinstance(facts.get(name), kind) for name, kind in _FACTS.items())
    if not right:
        raise FileError.of(f"{place}: facts", "is damaged", "write it again")
    return {name: facts[name] for name in _FACTS}


def check_schedule(schedule: Schedule, visits: Visits, capacity_bytes: int, rule: str, place: str) -> None:
    """Refuse a schedule that was made for something else.

    Raises:
        ScenarioError: it is for another workload, cache size or capacity rule.
    """
    again = "make it anew: `moesim optimum SCENARIO`"
    if schedule.visits_sha256 != digest_of(visits) or len(schedule.keep_until) != len(visits.activation_key):
        told = f"is for another workload (made from the trace {schedule.trace_sha256[:12]}…)"
        raise ScenarioError.of(place, told, again)
    if (schedule.capacity_bytes, schedule.rule) != (capacity_bytes, rule):
        told = f"is for a cache of {schedule.capacity_bytes} bytes under rule {schedule.rule!r}"
        raise ScenarioError.of(place, f"{told}, and this one has {capacity_bytes} under {rule!r}", again)
    keys, targets = schedule.proposals.key, schedule.proposals.target
    wrong_start = len(schedule.proposals.start) != visits.num_visits + 1
    outside = len(keys) and (keys.min() < 0 or keys.max() >= visits.num_keys or targets.max() >= visits.num_visits)
    if wrong_start or outside:
        raise ScenarioError.of(place, "proposes experts or visits that the workload does not have", again)
