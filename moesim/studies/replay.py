"""A trace, a caching policy and sizes: what ``moesim replay`` counts."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError, PolicyError, TraceError
from moesim.models import load_model, parameters
from moesim.policies import api
from moesim.policies.api import Policy
from moesim.policies.plug_ins import is_file
from moesim.replay import Counts, count
from moesim.replay.counts import Phase, Rule, training_uses
from moesim.traces import RoutingTrace, load_trace
from moesim.traces.importers import import_trace
from moesim.traces.steps import closed_loop
from moesim.traces.visits import Visits, visits_of


@dataclass(frozen=True)
class ReplayStudy:
    """A workload and a policy, ready to be counted at any size.

    Attributes:
        sizes: bytes of each expert. [keys]
        notes: what a reader must know beside the counts.
    """

    trace: RoutingTrace
    visits: Visits
    policy: Policy
    sizes: NDArray[np.int64]
    training_uses: NDArray[np.int64] | None
    notes: tuple[str, ...]

    @property
    def largest_bytes(self) -> int:
        """The largest expert."""
        return int(self.sizes.max())

    def count(
        self, capacity_bytes: int, *, per_layer: bool, rule: Rule, phase: Phase, progress: Callable[[int], None]
    ) -> Counts:
        """Counts at one size; see :func:`moesim.replay.count`."""
        return count(
            self.visits,
            self.sizes,
            self.policy,
            capacity_bytes,
            per_layer=per_layer,
            rule=rule,
            phase=phase,
            training_uses=self.training_uses,
            progress=progress,
        )


def load_any_trace(path: Path) -> RoutingTrace:
    """A moesim trace, or a neutral ``.npz``, which is imported on the fly.

    Raises:
        FileError, TraceError: neither, or wrong content.
    """
    return import_trace("neutral", path, {}) if _looks_neutral(path) else load_trace(path)


def _looks_neutral(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
    return "sequence.npy" in names and "format.npy" not in names


def replay_study(
    trace: RoutingTrace,
    policy: str,
    *,
    expert_bytes: int | None = None,
    batch: int = 1,
    train_fraction: float = 0.0,
    allow_code: bool = False,
) -> ReplayStudy:
    """Prepare a replay of all requests of a trace, one after the other (``batch`` at a time).

    Args:
        expert_bytes: of every expert; default: the trace card's, else its model card's.
        train_fraction: share of requests, from the start, to learn from; they are not counted.
        allow_code: run a policy that is named as a file.

    Raises:
        PolicyError: unknown policy, or one that learns without a training split.
        TraceError: the size of an expert isn't known.
    """
    try:
        if is_file(policy) and not allow_code:
            raise PolicyError.of("", f"{policy} is code, which runs with all your rights", "--allow-code, once read")
        load = partial(api.load_file, path=Path(policy)) if is_file(policy) else api.load
        chosen = load("caching", policy)
    except PolicyError as error:
        raise PolicyError([replace(fault, place="--policy") for fault in error.faults]) from None
    requests = [int(request) for request in trace.request_ids]
    learned = round(len(requests) * train_fraction)
    if learned == len(requests):
        raise TraceError.of("--train-fraction", f"leaves none of {len(requests)} requests to count")
    uses = None
    if learned:
        uses = training_uses(visits_of(trace, closed_loop(trace, requests[:learned])))
    visits = visits_of(trace, closed_loop(trace, requests[learned:], batch))
    sizes, note = _sizes(trace, expert_bytes)
    notes = [note, *(f"the trace is {label}" for label in trace.card.labels)]
    if chosen.needs_future:
        notes.append(f"{policy} knows the future: a bound, not a system")
    return ReplayStudy(trace, visits, chosen, sizes, uses, tuple(notes))


def _sizes(trace: RoutingTrace, expert_bytes: int | None) -> tuple[NDArray[np.int64], str]:
    """Bytes of each key, and where they come from."""
    keys = trace.num_layers * trace.num_experts
    if expert_bytes is not None:
        return np.full(keys, expert_bytes, dtype=np.int64), f"experts of {expert_bytes} bytes, as given"
    if trace.card.expert_bytes is not None:
        sizes = np.repeat(np.array(trace.card.expert_bytes, dtype=np.int64), trace.num_experts)
        return sizes, "sizes of experts: the trace's card"
    try:
        model = load_model(trace.card.model.rpartition("/")[2].lower())
    except MoesimError:
        raise TraceError.of(
            trace.card.name, "does not say how large an expert is", "give it, as in --expert-bytes 13.2MB"
        ) from None
    size = parameters.expert_bytes(model, model.expert_precision)
    return np.full(keys, size, dtype=np.int64), f"sizes of experts: {model.name} in {model.expert_precision}"
