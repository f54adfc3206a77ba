"""The replay with a clock: a Setup's times, stalls and counters as the SimPy engine has them, much faster.

It covers one GPU and the one link that brings experts to it: from host memory that holds them all, or from flash
where memory is unified; any caching policy, prefetch, batches and prefill. The rest is for the SimPy engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import Fault, PolicyError, ScenarioError
from moesim.replay.compile import run
from moesim.replay.compiled_counts import notes_array
from moesim.replay.expert_cache import contexts
from moesim.replay.kernels import node as places
from moesim.replay.kernels.caches import Caches
from moesim.replay.kernels.node import Node, Record, Work
from moesim.replay.packed import check_fault, pack
from moesim.setup import Setup

#: Columns of ``stall_s``, which are the engine's causes: where the link's own is, and how many there are.
_PCIE, _FLASH, _CAUSES = 0, 2, 7


@dataclass(frozen=True)
class Timed:
    """What a run leaves behind; fields as in the engine's ``Outcome``.

    Attributes:
        stall_s: seconds that the GPU waited, by cause. [visits, causes]
        prefetch: what became of proposals, by the names of the engine's ``PrefetchCounts``.
    """

    step_start_s: NDArray[np.float64]
    step_end_s: NDArray[np.float64]
    visit_start_s: NDArray[np.float64]
    visit_end_s: NDArray[np.float64]
    label: NDArray[np.uint8]
    stall_s: NDArray[np.float64]
    evictions: int
    overshoot_bytes: int
    resident_share: NDArray[np.float64]
    resident_bytes: NDArray[np.int64]
    prefetch: dict[str, int]


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
    if setup.host is not None:
        faults.append(Fault("hardware", "the compiled replay has no host memory in front of flash", engine))
    if setup.on_miss.name != "fetch":
        message = f"the compiled replay only fetches what is missing (got {setup.on_miss.name!r})"
        faults.append(Fault("policies.on_miss", message, engine))
    if setup.prefetch is not None or setup.candidates.low is not None:
        message = "the compiled replay sends all proposals as they are made, and in full"
        faults.append(Fault("policies.prefetch", message, engine))
    return faults


def replay_timed(setup: Setup) -> Timed:
    """Run a setup until its last step has ended.

    Raises:
        ScenarioError: the setup needs the SimPy engine; says why.
        PolicyError: the caching policy can't be compiled, or breaks its contract.
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
    caches = pack(policy, parts)
    work = _work(setup)
    node = _node(setup, caches)
    steps, count = visits.steps.num_steps, visits.num_visits
    record = Record(np.zeros(steps), np.zeros(steps), np.zeros(count), np.zeros(count), np.zeros(count, np.int64))
    run(policy, "timeline", caches, node, work, record)
    check_fault(policy, caches)
    if node.numbers[places.STUCK]:
        raise PolicyError.of(f"policy {policy.name!r} (caching)", "nothing can go on: no room for what is asked for")
    return Timed(
        **{field: getattr(record, field) for field in ("step_start_s", "step_end_s", "visit_start_s", "visit_end_s")},
        label=node.label,
        stall_s=node.stall_s,
        evictions=int(node.numbers[places.EVICTIONS]),
        overshoot_bytes=int(node.numbers[places.OVERSHOOT]),
        resident_share=node.key_i[:, places.STAYED] / count,
        resident_bytes=record.resident_bytes,
        prefetch={name: int(node.numbers[place]) for name, place in _PREFETCH.items()},
    )


def _work(setup: Setup) -> Work:
    visits, times, candidates = setup.visits, setup.times, setup.candidates
    return Work(
        layers=visits.num_layers,
        link=_FLASH if setup.unified else _PCIE,
        starts_request=visits.starts_request,
        start=_ints(visits.activation_start),
        key=_ints(visits.activation_key),
        note=notes_array(visits, setup.gpu.policy),
        lookup_start=_ints(visits.lookup_start),
        lookup_key=_ints(visits.lookup_key),
        before_s=_floats(times.before.total_s),
        shared_s=_floats(times.shared.total_s),
        expert_s=_floats(times.expert.total_s),
        after_s=_floats(times.after.total_s),
        proposal_start=_ints(candidates.start),
        proposal_key=_ints(candidates.key),
        proposal_target=_ints(candidates.target),
    )


def _node(setup: Setup, caches: Caches) -> Node:
    keys, count = setup.visits.num_keys, setup.visits.num_visits
    numbers = np.zeros(places.NUMBERS, dtype=np.int64)
    numbers[places.RESERVE] = setup.rule == "reserve"
    numbers[places.DEMAND_FIRST] = setup.link == "demand-first"
    numbers[[places.BUSY, places.ADMITTING, places.AWAITED]] = -1
    numbers[places.USED_BYTES] = caches.sizes[caches.held > 0].sum()
    key_i = np.zeros((keys, places.KEY_I), dtype=np.int64)
    key_i[:, places.SINCE] = np.where(caches.held > 0, 0, -1)
    key_f = np.zeros((keys, places.KEY_F))
    key_f[:, places.COPY_S] = setup.times.read_s if setup.unified else setup.times.copy_s
    if setup.gpu.policy.note in ("next_use", "schedule"):
        key_f[:, places.UPCOMING] = len(setup.visits.activation_key)
        used, first = np.unique(setup.visits.activation_key, return_index=True)
        key_f[used, places.UPCOMING] = first
    return Node(
        numbers=numbers,
        clock=np.zeros(places.ROOM_S + keys),
        key_i=key_i,
        key_f=key_f,
        # Between two clearings a key enters a queue at most twice: as a prefetch, and as a demand that moves ahead.
        queue=np.zeros((3, 4 * keys), dtype=np.int64),
        label=np.zeros(len(setup.visits.lookup_key), dtype=np.uint8),
        stall_s=np.zeros((count, _CAUSES)),
    )


def _ints(array: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.require(array, np.int64, ["C", "W"])


def _floats(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.require(array, np.float64, ["C", "W"])
