"""A trace, a caching policy and sizes: what ``moesim replay`` counts."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError, PolicyError, TraceError
from moesim.models import load_model, parameters
from moesim.policies import api
from moesim.policies.api import Policy
from moesim.policies.plug_ins import is_file
from moesim.replay import Counts, count
from moesim.replay.counts import Phase, Rule
from moesim.replay.lru_curve import LruCurve, lru_curve
from moesim.replay.stream import VisitsPart, parts_of, stream_counts, visits_parts
from moesim.traces import RoutingTrace, load_trace
from moesim.traces.importers import import_trace
from moesim.traces.steps import closed_loop
from moesim.traces.trace import DECODE
from moesim.traces.visits import Visits, visits_of
from moesim.units import format_bytes

#: A workload of so many activations is counted part after part, so that memory holds it.
STREAM_FROM = 4_000_000
#: Of memory for each activation, while visits are made and replayed.
VISITS_BYTES = 120


@dataclass(frozen=True)
class ReplayStudy:
    """A workload and a policy, ready to be counted at any size.

    Attributes:
        requests: those that are counted, one after the other or ``batch`` at a time.
        sizes: bytes of each expert. [keys]
        training_uses: activations of each expert in the requests before them, where there are any. [keys]
        notes: what a reader must know beside the counts.
    """

    trace: RoutingTrace
    requests: tuple[int, ...]
    batch: int
    policy: Policy
    sizes: NDArray[np.int64]
    training_uses: NDArray[np.int64] | None
    notes: tuple[str, ...]

    @cached_property
    def visits(self) -> Visits:
        """The whole workload.

        Raises:
            PolicyError: memory can't hold it.
        """
        need, have = self._activations * VISITS_BYTES, memory_bytes()
        if need > have:
            why = f"--batch {self.batch}" if self.batch > 1 else f"--policy {self.policy.name}"
            told = f"needs the whole workload in memory: about {format_bytes(need)}, and there are {format_bytes(have)}"
            raise PolicyError.of(why, told, "batch 1 and a policy that needs no future, or a trace of fewer requests")
        return visits_of(self.trace, closed_loop(self.trace, list(self.requests), self.batch))

    @property
    def largest_bytes(self) -> int:
        """The largest expert."""
        return int(self.sizes.max())

    @cached_property
    def num_visits(self) -> int:
        """Of the workload."""
        if self.batch > 1:
            return self.visits.num_visits
        phases = (self.trace.phase[self.trace.rows_of(request)] for request in self.requests)
        return self.trace.num_layers * sum(
            int((phase == DECODE).sum()) + bool((phase != DECODE).any()) for phase in phases
        )

    def count(
        self, capacity_bytes: int, *, per_layer: bool, rule: Rule, phase: Phase, progress: Callable[[int], None]
    ) -> Counts:
        """Counts at one size; see :func:`moesim.replay.count`. A long workload is streamed, where it can be."""
        streamed = self._activations >= STREAM_FROM and self.batch == 1 and self.policy.note is None
        parts, experts = parts_of(self.trace, self.requests), self.trace.num_experts
        counted = partial(stream_counts, parts, experts) if streamed else partial(count, self.visits)
        return counted(
            self.sizes,
            self.policy,
            capacity_bytes,
            per_layer=per_layer,
            rule=rule,
            phase=phase,
            training_uses=self.training_uses,
            progress=progress,
        )

    def all_sizes(self, *, per_layer: bool, rule: Rule, phase: Phase) -> list[dict[str, Any]]:
        """LRU's counts at every number of experts (of each layer), in one pass.

        Raises:
            PolicyError: the policy is not LRU, or experts differ in size.
        """
        if self.policy.name != "lru":
            told = f"all sizes are counted in one pass for lru only (got {self.policy.name!r})"
            raise PolicyError.of("--all-sizes", told, "--capacities, which takes a pass for each size")
        if int(self.sizes.min()) != self.largest_bytes:
            hint = f"--capacities, or --expert-bytes {self.largest_bytes}B to count them all alike"
            raise PolicyError.of("--all-sizes", "experts differ in size", hint)
        experts = self.trace.num_experts
        alone = self.batch == 1
        lookups = rule != "sequential"
        streamed = visits_parts(parts_of(self.trace, self.requests), experts, lookups=lookups) if alone else ()
        parts = streamed if alone else [VisitsPart.whole(self.visits)]
        curve = lru_curve(parts, experts, rule, per_layer=per_layer, phase=phase)
        caches = self.trace.num_layers if per_layer else 1
        hits = enumerate(curve.hits.tolist())
        return [self._point(slots * caches, found, curve) for slots, found in hits if slots >= curve.least]

    def _point(self, slots: int, hits: int, curve: LruCurve) -> dict[str, Any]:
        misses = curve.lookups - hits
        return {
            "capacity_bytes": slots * self.largest_bytes,
            "lookups": curve.lookups,
            "hits": hits,
            "misses": misses,
            "hit_rate_per_lookup": hits / curve.lookups if curve.lookups else None,
            "fetched_bytes": misses * self.largest_bytes,
        }

    @property
    def _activations(self) -> int:
        """At most."""
        tokens = sum(rows.stop - rows.start for rows in map(self.trace.rows_of, self.requests))
        return int(tokens) * self.trace.num_layers * self.trace.top_k


def memory_bytes() -> int:
    """What this machine has; where the system does not say, more than any."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62


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
        uses = _uses(trace, requests[:learned])
    sizes, note = _sizes(trace, expert_bytes)
    notes = [note, *(f"the trace is {label}" for label in trace.card.labels)]
    if chosen.needs_future:
        notes.append(f"{policy} knows the future: a bound, not a system")
    return ReplayStudy(trace, tuple(requests[learned:]), batch, chosen, sizes, uses, tuple(notes))


def _uses(trace: RoutingTrace, requests: Sequence[int]) -> NDArray[np.int64]:
    """Activations of each key in some requests. [keys]"""
    first = np.arange(trace.num_layers)[:, None] * trace.num_experts
    uses = np.zeros(trace.num_layers * trace.num_experts, dtype=np.int64)
    for request in requests:
        experts = np.asarray(trace.experts[trace.rows_of(request)])
        keys = (first + experts)[experts != trace.sentinel]
        uses += np.bincount(keys, minlength=len(uses))
    return uses


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
