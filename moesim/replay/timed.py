"""The replay with a clock: a Setup's times, stalls and counters as the SimPy engine has them, much faster.

It covers one GPU and what brings experts to it: the host link from host memory that holds them all or stands in front
of a drive, or a drive where memory is unified; the CPU for what is missing; any caching policies, prefetch, batches
and prefill. The rest is for the SimPy engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moesim.errors import Fault, PolicyError, ScenarioError
from moesim.policies.api import CPU, FETCH, Policy
from moesim.replay.compile import is_timeline_cached, run_timeline
from moesim.replay.compiled_counts import notes_array
from moesim.replay.expert_cache import contexts
from moesim.replay.figures import Cause, Moves, PrefetchCounts
from moesim.replay.kernels import host as host_places
from moesim.replay.kernels import node as places
from moesim.replay.kernels.caches import Caches
from moesim.replay.kernels.host import Host
from moesim.replay.kernels.node import Node, Record, Work
from moesim.replay.packed import check_fault, pack
from moesim.setup import Setup


@dataclass(frozen=True)
class Timed:
    """What a run leaves behind; fields as in the engine's ``Outcome``.

    Attributes:
        stall: seconds that the GPU waited, by the causes that there can be. [visits, columns]
        causes: the cause of each column.
        served: of each server its transfers, where they were recorded, as key, visit, whether a demand, and as start,
            end. [transfers, 3], [transfers, 2]
        waits: which lookup's transfer had to wait until which other lookup of its visit was computed. [waits, 2]
    """

    step_start_s: NDArray[np.float64]
    step_end_s: NDArray[np.float64]
    visit_end_s: NDArray[np.float64]
    label: NDArray[np.uint8]
    on_cpu: NDArray[np.bool_]
    stall: NDArray[np.float64]
    causes: list[Cause]
    evictions: int
    overshoot_bytes: int
    resident_share: NDArray[np.float64]
    resident_bytes: NDArray[np.int64]
    prefetch: PrefetchCounts
    served: list[tuple[NDArray[np.int64], NDArray[np.float64]]]
    waits: NDArray[np.int64]

    @cached_property
    def visit_start_s(self) -> NDArray[np.float64]:
        """Each visit begins when the one before ends, or with its step. [visits]"""
        start = np.concatenate([[0.0], self.visit_end_s[:-1]]).reshape(len(self.step_start_s), -1)
        start[:, 0] = self.step_start_s
        return start.reshape(-1)

    @cached_property
    def action(self) -> NDArray[np.uint8]:
        """What became of each lookup: FETCH or CPU. [lookups]"""
        return np.where(self.on_cpu, CPU, FETCH).astype(np.uint8)

    @cached_property
    def moves(self) -> dict[str, Moves]:
        """What each link and the CPU did, by name, in order; of a run that recorded it."""
        found = {}
        for name, (numbers, seconds) in zip(("flash", "pcie", "cpu"), self.served, strict=True):
            (key, visit, is_demand), (start_s, end_s) = numbers.T, seconds.T
            found[name] = Moves(key, visit, is_demand > 0, start_s, end_s, form=np.zeros_like(key))
        return found

    @cached_property
    def stall_s(self) -> NDArray[np.float64]:
        """Seconds that the GPU waited, by all causes. [visits, causes]"""
        all_causes = np.zeros((len(self.stall), len(Cause)))
        all_causes[:, self.causes] = self.stall
        return all_causes


_PREFETCH = {
    "proposed": places.PROPOSED,
    "redundant": places.REDUNDANT,
    "withdrawn": places.WITHDRAWN,
    "no_room": places.NO_ROOM,
    "started": places.STARTED,
    "used": places.IN_TIME,
    "late": places.TOO_LATE,
    "wasted": places.WASTED,
}


def not_covered(setup: Setup) -> list[Fault]:
    """What of a setup only the SimPy engine can run."""
    engine = "`moesim run` takes the SimPy engine"
    faults = []
    if not hasattr(setup.on_miss.module, "decide"):
        message = f"the compiled replay fetches what is missing or has the CPU compute it (got {setup.on_miss.name!r})"
        faults.append(Fault("policies.on_miss", message, engine))
    if setup.forms:
        faults.append(Fault("policies.on_miss", "the compiled replay knows experts in one form only", engine))
    if setup.prefetch is not None or setup.candidates.low is not None:
        message = "the compiled replay sends all proposals as they are made, and in full"
        faults.append(Fault("policies.prefetch", message, engine))
    if setup.pieces:
        faults.append(Fault("policies.chunk", "the compiled replay brings experts in one piece", engine))
    if not setup.withdraw:
        told = "the compiled replay gives up prefetches that their router did not choose"
        faults.append(Fault("policies.withdraw", told, engine))
    return faults


def is_timed_replay_at_hand(setup: Setup) -> bool:
    """Whether the machine code for a setup's policies is in the user's cache folder, or here already."""
    host_policy = None if setup.host is None else setup.host.policy
    return is_timeline_cached(setup.gpu.policy, host_policy, _on_miss(setup))


def replay_timed(setup: Setup, *, record_transfers: bool = False) -> Timed:
    """Run a setup until its last step has ended.

    Args:
        record_transfers: for ``Timed.moves``; takes 40 bytes for each.

    Raises:
        ScenarioError: the setup needs the SimPy engine; says why.
        PolicyError: a policy can't be compiled, or breaks its contract.
    """
    if faults := not_covered(setup):
        raise ScenarioError(faults)
    visits, policy = setup.visits, setup.gpu.policy
    parts = contexts(
        setup.sizes,
        setup.gpu.capacity_bytes,
        experts_per_layer=visits.num_experts,
        per_layer=setup.gpu.per_layer,
        training_uses=setup.gpu.training_uses,
        layer_bytes=setup.gpu.layer_bytes,
        pinned=setup.gpu.pinned,
    )
    caches, host = pack(policy, parts), _host(setup)
    node, record = _node(setup, caches), _record(setup, record_transfers)
    host_policy = None if setup.host is None else setup.host.policy
    run_timeline(policy, host_policy, _on_miss(setup), caches, host, node, _work(setup), record)
    _check(setup, caches, host, node)
    return Timed(
        step_start_s=record.step_start_s,
        step_end_s=record.step_end_s,
        visit_end_s=record.visit_end_s,
        label=node.label,
        on_cpu=node.on_cpu,
        stall=node.stall_s,
        causes=_causes(setup),
        evictions=int(node.numbers[places.EVICTIONS]),
        overshoot_bytes=int(node.numbers[places.OVERSHOOT]),
        resident_share=node.stayed / visits.num_visits,
        resident_bytes=record.resident_bytes,
        prefetch=PrefetchCounts(**{name: int(node.numbers[place]) for name, place in _PREFETCH.items()}),
        served=_served(node, record),
        waits=record.waits[: node.numbers[places.WAITS_NOTED]],
    )


def _served(node: Node, record: Record) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """What was recorded of each server, by its number."""
    counts = node.numbers[places.DONE : places.DONE + places.GPU].tolist()
    return [
        (numbers[:count], seconds[:count])
        for numbers, seconds, count in zip(record.span_i, record.span_s, counts, strict=True)
    ]


def _on_miss(setup: Setup) -> Policy | None:
    """The on-miss policy where it has a choice."""
    return None if setup.on_miss.name == "fetch" else setup.on_miss


def _check(setup: Setup, caches: Caches, host: Host, node: Node) -> None:
    """Raise what the kernel found."""
    check_fault(setup.gpu.policy, caches)
    if host.numbers[host_places.FAULT]:
        assert setup.host is not None
        told = "victim() named an expert that it does not keep"
        raise PolicyError.of(f"policy {setup.host.policy.name!r} (host caching)", told)
    if node.numbers[places.STUCK]:
        told = "nothing can go on: no room for what is asked for"
        raise PolicyError.of(f"policy {setup.gpu.policy.name!r} (caching)", told)


def _work(setup: Setup) -> Work:
    visits, times, candidates = setup.visits, setup.times, setup.candidates
    return Work(
        layers=visits.num_layers,
        starts_request=visits.starts_request,
        start=_ints(visits.activation_start),
        key=_ints(visits.activation_key),
        note=notes_array(visits, setup.gpu.policy),
        lookup_start=_ints(visits.lookup_start),
        lookup_key=_ints(visits.lookup_key),
        lookup_tokens=_ints(visits.lookup_tokens),
        before_s=_floats(times.before.total_s),
        shared_s=_floats(times.shared.total_s),
        expert_s=_floats(times.expert.total_s),
        after_s=_floats(times.after.total_s),
        cpu_s=_floats(times.cpu_s),
        proposal_start=_ints(candidates.start),
        proposal_key=_ints(candidates.key),
        proposal_target=_ints(candidates.target),
        miss_state=_floats(setup.on_miss.module.initial_state(setup.on_miss.params)),
    )


def _host(setup: Setup) -> Host:
    """Host memory; of nothing where there is none."""
    numbers = np.zeros(host_places.NUMBERS, dtype=np.int64)
    keys = setup.visits.num_keys if setup.host is not None else 0
    passing, sizes = np.zeros(keys, dtype=np.uint8), setup.sizes[:keys]
    if setup.host is None:
        none = np.zeros(0, dtype=np.int64)
        return Host(none, np.zeros(0), sizes, passing, none, passing, numbers)
    tier, experts = setup.host, setup.visits.num_experts
    parts = contexts(
        sizes,
        tier.capacity_bytes,
        experts_per_layer=experts,
        per_layer=False,
        training_uses=tier.training_uses,
        asks=tier.asks,
    )
    cache = pack(tier.policy, parts)
    numbers[host_places.USED] = sizes[cache.held > 0].sum()
    numbers[host_places.CAPACITY], numbers[host_places.KEYS_PER_LAYER] = tier.capacity_bytes, experts
    return Host(cache.state_i, cache.state_f, cache.sizes, cache.held, cache.locked, passing, numbers)


def _node(setup: Setup, caches: Caches) -> Node:
    keys, count, lookups = setup.visits.num_keys, setup.visits.num_visits, len(setup.visits.lookup_key)
    numbers = np.zeros(places.NUMBERS, dtype=np.int64)
    numbers[places.RESERVE] = setup.rule == "reserve"
    numbers[places.DEMAND_FIRST] = setup.link == "demand-first"
    numbers[places.TOP] = places.FLASH if setup.unified else places.PCIE
    numbers[[places.AWAITED, places.LOOKUP_NOW]] = -1
    numbers[places.HEAD : places.WAITS_NOTED] = -1
    numbers[places.USED_BYTES] = caches.sizes[caches.held > 0].sum()
    upcoming = np.zeros(keys if setup.gpu.policy.note else 0)
    if setup.gpu.policy.note in ("next_use", "schedule"):
        upcoming[:] = len(setup.visits.activation_key)
        used, first = np.unique(setup.visits.activation_key, return_index=True)
        upcoming[used] = first
    slot_i = np.zeros((keys + 1, places.SLOT_I), dtype=np.int64)
    slot_i[:, places.NEXT] = np.arange(1, keys + 2)
    return Node(
        numbers=numbers,
        clock=np.full(places.CLOCK, np.inf),
        slot_i=slot_i,
        slot_f=np.zeros((keys + 1, places.SLOT_F)),
        slot_of=np.full(keys, -1, dtype=np.int32),
        copy_s=_floats(setup.times.copy_s),
        read_s=_floats(setup.times.read_s),
        upcoming=upcoming,
        stayed=np.zeros(keys, dtype=np.int64),
        unused=np.zeros(keys, dtype=np.uint8),
        arrivals=np.zeros(keys, dtype=np.int64),
        label=np.zeros(lookups, dtype=np.uint8),
        on_cpu=np.zeros(lookups, dtype=np.bool_),
        stall_s=np.zeros((count, len(_causes(setup)))),
    )


def _causes(setup: Setup) -> list[Cause]:
    """The cause of each column of the kernel's stalls; only those that this setup can have."""
    if setup.unified:
        return [Cause.FLASH, Cause.FLASH_QUEUE, Cause.ROOM]
    found = [Cause.PCIE, Cause.PCIE_QUEUE, Cause.ROOM]
    if setup.host is not None or _on_miss(setup):
        found += [Cause.FLASH, Cause.FLASH_QUEUE]
    return found + ([Cause.CPU, Cause.CPU_QUEUE] if _on_miss(setup) else [])


def _record(setup: Setup, transfers: bool) -> Record:
    steps, visits = setup.visits.steps.num_steps, setup.visits.num_visits
    # No server brings an expert more often than it is looked up or proposed. Pages that aren't written take no memory.
    most = len(setup.visits.lookup_key) + len(setup.candidates.key) if transfers else 0
    return Record(
        step_start_s=np.zeros(steps),
        step_end_s=np.zeros(steps),
        visit_end_s=np.zeros(visits),
        resident_bytes=np.zeros(visits, dtype=np.int64),
        span_i=np.zeros((places.GPU, most, 3), dtype=np.int64),
        span_s=np.zeros((places.GPU, most, 2)),
        waits=np.zeros((most, 2), dtype=np.int64),
    )


def _ints(array: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.require(array, np.int64, ["C", "W"])


def _floats(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.require(array, np.float64, ["C", "W"])
