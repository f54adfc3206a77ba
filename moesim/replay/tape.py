"""A decision tape: what a cache decided in one run, timed again for other hardware without redoing its work.

Where experts come over one link, only when they are asked for, nothing that is decided depends on the clock: who
leaves is chosen visit by visit. So one run serves for all GPUs, links and drives with the same cache, each in a small
fraction of a run's time, and to the last bit as a run of its own would have it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.errors import Fault, ScenarioError
from moesim.replay.compile import run
from moesim.replay.compiled_counts import notes_array
from moesim.replay.kernels.node import HIT
from moesim.replay.kernels.retime import Decisions, Seconds, Timings
from moesim.replay.timed import Timed, not_covered, replay_timed
from moesim.setup import Setup


@dataclass(frozen=True)
class Tape:
    """The decisions of a run.

    Attributes:
        run: all that it left behind.
        identity: a checksum of what the decisions follow from.
    """

    run: Timed
    identity: str


def depends_on_time(setup: Setup) -> list[Fault]:
    """What of a setup's decisions depends on the clock, or is not covered by the compiled replay at all."""
    faults = not_covered(setup)
    if len(setup.candidates.key):
        faults.append(
            Fault("policies.prefetch", "what is prefetched in time, and who leaves for it, depends on the clock")
        )
    if setup.host is not None:
        faults.append(Fault("hardware.host_memory", "which experts host memory lets go depends on the clock"))
    if setup.on_miss.name != "fetch":
        faults.append(Fault("policies.on_miss", "where a missing expert is computed depends on how long it takes"))
    return faults


def identity_of(setup: Setup) -> str:
    """A checksum of all that decisions follow from: the workload, sizes, the cache and its policy; no times."""
    visits, tier = setup.visits, setup.gpu
    of_policy = (tier.policy.name, tier.policy.module.__name__, tier.policy.params)
    of_cache = (tier.capacity_bytes, tier.per_layer, tier.layer_bytes, tier.pinned, setup.rule, setup.unified)
    digest = hashlib.sha256(repr((visits.routing_sha256, of_policy, of_cache)).encode())
    learned = np.zeros(0, dtype=np.int64) if tier.training_uses is None else tier.training_uses
    follows_from_routing = tier.policy.note in (None, "next_use")
    notes = np.zeros(0) if follows_from_routing else notes_array(visits, tier.policy)
    for array in (setup.sizes, learned, notes):
        digest.update(f"{len(array)} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def record_tape(setup: Setup) -> Tape:
    """Run a setup, and keep what was decided.

    Raises:
        ScenarioError: decisions depend on the clock; says which.
        PolicyError: the policy can't be compiled, or breaks its contract.
    """
    if faults := depends_on_time(setup):
        raise ScenarioError(faults)
    return Tape(replay_timed(setup, record_transfers=True), identity_of(setup))


def retimed(tape: Tape, setup: Setup) -> Timed:
    """What a run of the setup leaves behind: the tape's decisions, at the setup's times.

    Raises:
        ScenarioError: the tape is another workload's, or another cache's.
    """
    if faults := depends_on_time(setup):
        raise ScenarioError(faults)
    if identity_of(setup) != tape.identity:
        told = "the decisions were made for another workload, cache or policy; only times may differ"
        raise ScenarioError.of("the tape", told, "record one for this setup")
    run_of = tape.run
    misses = int((run_of.label != HIT).sum())
    lookups, keys = setup.visits.lookup_start, setup.visits.lookup_key
    decisions = Decisions(setup.visits.num_layers, lookups, keys, run_of.label, run_of.waits)
    timings = Timings(
        step_start_s=np.empty_like(run_of.step_start_s),
        step_end_s=np.empty_like(run_of.step_end_s),
        visit_end_s=np.empty_like(run_of.visit_end_s),
        stall_s=np.zeros_like(run_of.stall),
        span_s=np.empty((misses, 2)),
        done_s=np.empty(int(np.diff(lookups).max(initial=0))),
    )
    run(None, "retime", decisions, _seconds(setup), timings)
    served = [
        (numbers, timings.span_s if len(numbers) else np.zeros((0, 2)))  # one server brought all
        for numbers, _ in run_of.served
    ]
    return replace(
        run_of,
        step_start_s=timings.step_start_s,
        step_end_s=timings.step_end_s,
        visit_end_s=timings.visit_end_s,
        stall=timings.stall_s,
        served=served,
    )


def _seconds(setup: Setup) -> Seconds:
    times = setup.times
    return Seconds(
        before_s=_floats(times.before.total_s),
        shared_s=_floats(times.shared.total_s),
        expert_s=_floats(times.expert.total_s),
        after_s=_floats(times.after.total_s),
        to_gpu_s=_floats(times.read_s if setup.unified else times.copy_s),
    )


def _floats(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.require(array, np.float64, ["C", "W"])
