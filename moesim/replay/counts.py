"""Hits, misses and bytes of a caching policy on a trace, without a clock.

Three capacity rules (DESIGN, section 5), which differ in when victims leave:

- ``reserve``: before an expert is brought in; a visit larger than the cache runs in waves.
- ``evict_after``: after the visit; all its experts are in together, and the cache may overshoot meanwhile.
- ``sequential``: every activation is a lookup of its own, as in cache simulators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError
from moesim.policies.api import CacheContext, Policy
from moesim.replay import compiled_counts
from moesim.replay.expert_cache import CachePartition, ExpertCache, contexts
from moesim.traces.trace import DECODE
from moesim.traces.visits import Visits

Rule = Literal["reserve", "evict_after", "sequential"]
Phase = Literal["all", "decode"]
#: From so many activations on a replay runs compiled. Interpreted, that many take a second or two.
COMPILE_FROM = 1_000_000


@dataclass(frozen=True)
class Counts:
    """What a replay counted, layer by layer. A rate is null where nothing was looked up.

    Attributes:
        activations, lookups, hits, fetched_bytes: integers of each layer. [layers]
        overshoot_bytes: the most that was held beyond the capacity (rule ``evict_after``).
        hit: whether each counted lookup was a hit, in order; None where a stream was counted. [lookups]
    """

    activations: NDArray[np.int64]
    lookups: NDArray[np.int64]
    hits: NDArray[np.int64]
    fetched_bytes: NDArray[np.int64]
    overshoot_bytes: int
    hit: NDArray[np.bool_] | None

    @property
    def hit_rate_per_lookup(self) -> float | None:
        """Hits over lookups."""
        total = int(self.lookups.sum())
        return int(self.hits.sum()) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain numbers, totals first."""
        rows = zip(self.activations, self.lookups, self.hits, self.fetched_bytes, strict=True)
        layers = [{"layer": layer, **_row(*map(int, row))} for layer, row in enumerate(rows)]
        sums = (int(column.sum()) for column in (self.activations, self.lookups, self.hits, self.fetched_bytes))
        return {**_row(*sums), "overshoot_bytes": self.overshoot_bytes, "per_layer": layers}


def _row(activations: int, lookups: int, hits: int, fetched_bytes: int) -> dict[str, Any]:
    return {
        "activations": activations,
        "lookups": lookups,
        "hits": hits,
        "misses": lookups - hits,
        "hit_rate_per_lookup": hits / lookups if lookups else None,
        "fetched_bytes": fetched_bytes,
    }


def count(
    visits: Visits,
    sizes: NDArray[np.int64],
    policy: Policy,
    capacity_bytes: int,
    *,
    per_layer: bool = False,
    rule: Rule = "reserve",
    phase: Phase = "all",
    training_uses: NDArray[np.int64] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Counts:
    """Replay ``visits`` through a cache that starts cold (or with what the policy preloads).

    Args:
        sizes: bytes of each key. [layers * experts]
        per_layer: one cache for each layer with an equal share of the capacity, instead of a global one.
        phase: ``decode`` counts decode only; prefill still passes through the cache.
        training_uses: activations of each key in the training split, for policies that learn. [layers * experts]
        progress: called with the number of visits done, now and then.

    Raises:
        PolicyError: the largest expert does not fit, or the policy needs a training split and there is none.
    """
    check_capacity(sizes, policy, capacity_bytes, visits.num_layers if per_layer else 1, training_uses)
    parts = contexts(
        sizes,
        capacity_bytes,
        experts_per_layer=visits.num_experts,
        per_layer=per_layer,
        training_uses=training_uses,
    )
    replay = compiled_counts.replay if _worth_compiling(visits, policy) else _interpreted
    hit, overshoot = replay(visits, policy, parts, rule, progress)
    if rule == "sequential":
        visit_of_lookup = np.repeat(np.arange(visits.num_visits), np.diff(visits.activation_start))
        keys = visits.activation_key
    else:
        visit_of_lookup = np.repeat(np.arange(visits.num_visits), np.diff(visits.lookup_start))
        keys = visits.lookup_key
    counted = np.full(visits.num_visits, True)
    if phase == "decode":
        counted = np.repeat(visits.steps.phase == DECODE, visits.num_layers)
    return _tally(visits, sizes, keys, visit_of_lookup, hit, counted, overshoot)


def _interpreted(
    visits: Visits, policy: Policy, parts: list[CacheContext], rule: Rule, progress: Callable[[int], None]
) -> tuple[NDArray[np.bool_], int]:
    """Whether each lookup was a hit, and the most that was held beyond the capacity."""
    caches = CachePartition(tuple(ExpertCache(policy, part) for part in parts), visits.num_experts)
    run = {"reserve": _reserve, "evict_after": _evict_after, "sequential": _sequential}[rule]
    hit, overshoot = run(visits, caches, notes_of(visits, policy), progress)
    return np.array(hit, dtype=np.bool_), overshoot


def _worth_compiling(visits: Visits, policy: Policy) -> bool:
    """Whether the replay is long enough to pay for loading (the first time: compiling) kernels."""
    return len(visits.activation_key) >= COMPILE_FROM or compiled_counts.is_at_hand(policy)


def notes_of(visits: Visits, policy: Policy) -> list[float]:
    """The ``note`` of every activation, as the policy asked for it. [activations]"""
    if policy.note == "next_use":
        return [float(use) for use in visits.next_use.tolist()]
    if policy.note == "schedule":
        return [float(until) for until in visits.scheduled.tolist()]
    if policy.note == "weight":
        return [float(weight) for weight in visits.activation_weight.tolist()]
    return [0.0] * len(visits.activation_key)


def visit_facts(visits: Visits, visit: int) -> tuple[int, bool]:
    """A visit's layer, and whether a request runs its first token in its step."""
    step, layer = divmod(visit, visits.num_layers)
    return layer, bool(visits.starts_request[step])


def training_uses(visits: Visits) -> NDArray[np.int64]:
    """Activations of each key, to be learned from. [layers * experts]"""
    return np.bincount(visits.activation_key, minlength=visits.num_keys).astype(np.int64)


def check_capacity(sizes: NDArray[np.int64], policy: Policy, capacity: int, parts: int, uses: object) -> None:
    """See that each of ``parts`` caches can work.

    Raises:
        PolicyError: the largest expert does not fit, or the policy needs a training split and there is none.
    """
    largest = int(sizes.max())
    if capacity // parts < largest:
        share = f" ({capacity // parts} bytes a layer)" if parts > 1 else ""
        raise PolicyError.of(
            "capacity",
            f"{capacity} bytes{share} do not hold the largest expert of {largest} bytes",
            f"at least {largest * parts / 2**20:.1f} MiB",
        )
    if policy.needs_training and uses is None:
        raise PolicyError.of("policy", f"{policy.name!r} learns from a training split and none is named")


def _reserve(visits: Visits, caches: CachePartition, notes: list[float], progress: Callable[[int], None]) -> Any:
    hits: list[bool] = []
    for visit, cache, members, activations in _each_visit(visits, caches, notes):
        hits.extend(present := [cache.resident[key] for key in members])
        cache.begin_visit(members)
        for key, was_present in zip(members, present, strict=True):
            if not was_present:
                cache.expect(key)
                while not cache.fits(key):
                    cache.drop(cache.next_to_leave())
                cache.start_demand(key)
        cache.end_visit(activations)
        progress(visit)
    return hits, 0


def _evict_after(visits: Visits, caches: CachePartition, notes: list[float], progress: Callable[[int], None]) -> Any:
    hits: list[bool] = []
    overshoot = 0
    for visit, cache, members, activations in _each_visit(visits, caches, notes):
        hits.extend(present := [cache.resident[key] for key in members])
        cache.begin_visit(members)
        for key, was_present in zip(members, present, strict=True):
            if not was_present:
                cache.expect(key)
                cache.start_demand(key)
        overshoot = max(overshoot, cache.used_bytes - cache.capacity_bytes)
        cache.end_visit(activations)
        cache.trim(members)
        progress(visit)
    return hits, overshoot


def _sequential(visits: Visits, caches: CachePartition, notes: list[float], progress: Callable[[int], None]) -> Any:
    hits: list[bool] = []
    for visit, cache, _, activations in _each_visit(visits, caches, notes):
        for key, note in activations:
            hits.append(cache.resident[key])
            cache.begin_visit((key,))
            if not cache.resident[key]:
                cache.expect(key)
                while not cache.fits(key):
                    cache.drop(cache.next_to_leave())
                cache.start_demand(key)
            cache.end_visit(((key, note),))
        progress(visit)
    return hits, 0


def _each_visit(visits: Visits, caches: CachePartition, notes: list[float]) -> Any:
    """Announces each visit; (visit, cache, its members, its (key, note) activations), keys as the cache counts them."""
    lookup_start, lookup_key = visits.lookup_start.tolist(), visits.lookup_key.tolist()
    start, activation_key = visits.activation_start.tolist(), visits.activation_key.tolist()
    for visit in range(visits.num_visits):
        cache, first = caches.of_layer(visit % visits.num_layers)
        members = [key - first for key in lookup_key[lookup_start[visit] : lookup_start[visit + 1]]]
        keys = [key - first for key in activation_key[start[visit] : start[visit + 1]]]
        caches.announce(*visit_facts(visits, visit))
        yield visit, cache, members, list(zip(keys, notes[start[visit] : start[visit + 1]], strict=True))


def _tally(
    visits: Visits,
    sizes: NDArray[np.int64],
    keys: NDArray[np.int64],
    visit_of_lookup: NDArray[np.int64],
    hit: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    overshoot: int,
) -> Counts:
    layers = visits.num_layers
    wanted = counted[visit_of_lookup]
    layer = keys[wanted] // visits.num_experts
    missed = ~hit[wanted]
    activation_visit = np.repeat(np.arange(visits.num_visits), np.diff(visits.activation_start))
    activation_layer = visits.activation_key[counted[activation_visit]] // visits.num_experts
    fetched = np.zeros(layers, dtype=np.int64)
    np.add.at(fetched, layer[missed], sizes[keys[wanted][missed]])
    return Counts(
        activations=np.bincount(activation_layer, minlength=layers).astype(np.int64),
        lookups=np.bincount(layer, minlength=layers).astype(np.int64),
        hits=np.bincount(layer[~missed], minlength=layers).astype(np.int64),
        fetched_bytes=fetched,
        overshoot_bytes=overshoot,
        hit=hit[wanted],
    )
