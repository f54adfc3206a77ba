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
_HOST_ARRAYS = ("host_start", "host_asks")


@dataclass(frozen=True)
class HostPlan:
    """Who stays how long in host memory in front of a drive.

    Attributes:
        capacity_bytes: the host's expert cache that it is for.
        start, asks: everything that is to go up, numbered in that order: key k does at ``asks[start[k]:start[k + 1]]``,
            rising. Whoever goes up last leaves first. [keys + 1], [asks]
    """

    capacity_bytes: int
    start: Ints
    asks: Ints


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
        host: the same for host memory; None: the scenario's own policy decides there.
    """

    purpose: str
    trace_sha256: str
    visits_sha256: str
    capacity_bytes: int
    rule: str
    keep_until: Ints
    proposals: Candidates
    host: HostPlan | None = None

    def arrays(self) -> dict[str, Ints]:
        """Every array by its name in the file."""
        proposed, host = self.proposals, self.host
        found = dict(zip(_ARRAYS, (self.keep_until, proposed.start, proposed.key, proposed.target), strict=True))
        return found if host is None else found | dict(zip(_HOST_ARRAYS, (host.start, host.asks), strict=True))


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
    return with_host_plan(replace(setup, visits=visits, gpu=gpu, candidates=schedule.proposals), schedule)


def with_host_plan(setup: Setup, schedule: Schedule) -> Setup:
    """The setup with the schedule's plan for host memory, where it has one.

    Raises:
        ScenarioError: the plan is for experts in one form.
    """
    plan = schedule.host
    if plan is None:
        return setup
    if setup.low is not None:
        told = "plans host memory for experts in one form, and copies in low precision stand there as well"
        raise ScenarioError.of("policies.schedule", told, "on_miss: fetch")
    host = TierSetup(load("caching", "scheduled"), plan.capacity_bytes, asks=(plan.start, plan.asks))
    return replace(setup, host=host)


def save_schedule(schedule: Schedule, path: Path) -> None:
    """Write a schedule to an ``.npz`` file, under a temporary name first.

    Raises:
        FileError: the place can't be written.
    """
    facts = {name: getattr(schedule, name) for name in _FACTS}
    if schedule.host is not None:
        facts["host_capacity_bytes"] = schedule.host.capacity_bytes
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
    facts, host_bytes = _facts(text_of(arrays, "facts", place), place)
    columns = {}
    for name in _ARRAYS if host_bytes is None else _ARRAYS + _HOST_ARRAYS:
        array = arrays.get(name)
        if array is None or array.ndim != 1 or array.dtype.kind != "i":
            raise FileError.of(f"{place}: {name}", "must be a row of integers", "write it again")
        columns[name] = array.astype(np.int64)
    keep_until, start, key, target, *of_host = columns.values()
    if not _are_parts(start, len(key)) or len(key) != len(target):
        raise FileError.of(f"{place}: proposal_start", "does not fit the proposals", "write it again")
    host = None
    if host_bytes is not None:
        host = HostPlan(host_bytes, *of_host)
        if not _are_parts(host.start, len(host.asks)):
            raise FileError.of(f"{place}: host_start", "does not fit the plan for host memory", "write it again")
    return Schedule(keep_until=keep_until, proposals=Candidates(start, key, target), host=host, **facts)


def _are_parts(start: Ints, count: int) -> bool:
    """Whether ``start`` divides ``count`` things into parts, one after the other."""
    return len(start) > 0 and start[0] == 0 and start[-1] == count and not (np.diff(start) < 0).any()


_FACTS = {"purpose": str, "trace_sha256": str, "visits_sha256": str, "capacity_bytes": int, "rule": str}


def _facts(text: str, place: str) -> tuple[dict[str, Any], int | None]:
    """The facts of every schedule, and the bytes of host memory where it plans that as well."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    right = isinstance(facts, dict) and all(isinstance(facts.get(name), kind) for name, kind in _FACTS.items())
    if not right:
        raise FileError.of(f"{place}: facts", "is damaged", "write it again")
    host_bytes = facts.get("host_capacity_bytes")
    if not (host_bytes is None or isinstance(host_bytes, int)):
        raise FileError.of(f"{place}: facts", "is damaged", "write it again")
    return {name: facts[name] for name in _FACTS}, host_bytes


def check_schedule(
    schedule: Schedule, visits: Visits, capacity_bytes: int, rule: str, place: str, host_bytes: int | None = None
) -> None:
    """Refuse a schedule that was made for something else.

    Args:
        host_bytes: of the host's expert cache in front of a drive; None: host memory holds every expert.

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
    plan = schedule.host
    if plan is not None and plan.capacity_bytes != host_bytes:
        here = "holds every expert" if host_bytes is None else f"has {host_bytes} bytes for experts"
        told = f"plans a host memory of {plan.capacity_bytes} bytes for experts, and this one {here}"
        raise ScenarioError.of(place, told, again)
    keys, targets = schedule.proposals.key, schedule.proposals.target
    wrong_start = len(schedule.proposals.start) != visits.num_visits + 1
    outside = len(keys) and (keys.min() < 0 or keys.max() >= visits.num_keys or targets.max() >= visits.num_visits)
    if wrong_start or outside or (plan is not None and len(plan.start) != visits.num_keys + 1):
        raise ScenarioError.of(place, "proposes experts or visits that the workload does not have", again)
