"""Placements of a run: what the policy knows, what it plans, and what it plans anew while running."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.costs.ports import Ports
from moesim.errors import PolicyError
from moesim.policies.placement_profile import PlacementProfile
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parallel.batch import Batch
from moesim.scenario.parallel.parts import ParallelParts
from moesim.scenario.parallel.schema import ParallelSpec
from moesim.setup.placement import Placement, placement_by

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: More tokens than these say nothing new about loads, and pairs of layers are counted for each.
MAX_SAMPLE = 8192


@dataclass(frozen=True)
class Plan:
    """Which placement each step runs under.

    Attributes:
        placements: one for each step; the same object while nothing changes.
        moves_s: seconds that moving weights adds before a step. [steps]
        moved_bytes: weights moved before a step, over all GPUs. [steps]
        profile: what the first placement learned from.
    """

    placements: list[Placement]
    moves_s: Floats
    moved_bytes: Floats
    profile: PlacementProfile


def plan_of(file: ScenarioFile, parts: ParallelParts, batch: Batch, expert_bytes: int) -> Plan:
    """Place experts, and again wherever the scenario wants it.

    Raises:
        PolicyError: the policy learns, and there is nothing to learn from; or it can't place these experts.
    """
    parallel = file.scenario.parallel
    assert parallel is not None
    if parts.placement.needs_training and not len(batch.learned):
        told = f"{parts.placement.name!r} learns from a training split, and it holds no token of this phase"
        raise PolicyError.of("", told, "workload: {train_fraction: 0.25}, or parallel: {profile: oracle}")
    rng = np.random.default_rng(np.random.SeedSequence([file.scenario.seed, zlib.crc32(b"placement")]))
    profile = profile_of(file, parts, parallel, sample_of(parts, batch, batch.learned))
    first = placement_by(parts.placement, profile, rng)
    plan = Plan([first], np.zeros(parallel.batch.steps), np.zeros(parallel.batch.steps), profile)
    for step in range(1, parallel.batch.steps):
        placement, again = plan.placements[-1], parallel.rebalance
        if again is not None and step % again.every == 0:
            seen = np.arange(max(step - (again.window or again.every), 0), step)
            sample = sample_of(parts, batch, batch.row[seen], seen[:, None, None])
            placement = placement_by(parts.placement, profile_of(file, parts, parallel, sample), rng)
            seconds, plan.moved_bytes[step] = _move(parts, plan.placements[-1], placement, expert_bytes)
            plan.moves_s[step] = seconds * (1 - again.hidden) / again.spread
        plan.placements.append(placement)
    return plan


def sample_of(parts: ParallelParts, batch: Batch, rows: Ints, step: Ints | int = 0) -> Ints:
    """Experts of the tokens that a placement learns from, each once. [tokens, layers, top_k]

    Args:
        rows: of the trace. [...]
        step: in which they ran, which tells how experts are called where the load drifts; broadcasts to ``rows``.
    """
    which = np.broadcast_to(step, rows.shape) if batch.label is not None else np.zeros(rows.shape, dtype=np.int64)
    shown = np.unique(which.astype(np.int64) * parts.trace.num_tokens + rows)
    if len(shown) > MAX_SAMPLE:
        shown = shown[np.linspace(0, len(shown) - 1, MAX_SAMPLE).astype(np.int64)]
    when, row = np.divmod(shown, parts.trace.num_tokens)
    return batch.routed(parts.trace, row, when)


def profile_of(file: ScenarioFile, parts: ParallelParts, parallel: ParallelSpec, sample: Ints) -> PlacementProfile:
    """What a placement policy sees.

    Args:
        sample: experts of tokens, as of :func:`sample_of`. [tokens, layers, top_k]
    """
    degrees, homes = parts.degrees, parts.homes()
    first = np.arange(0, degrees.stage, degrees.expert_tp)
    return PlacementProfile(
        num_layers=parts.model.num_moe_layers,
        num_experts=parts.model.num_experts,
        node_of_rank=homes.node_of_rank,
        slots_per_rank=(parts.model.num_experts + parallel.redundant_experts) // degrees.ep,
        groups=parallel.expert_groups,
        sample=sample,
        bandwidth=parts.topology.path_bytes_per_s[np.ix_(first, first)],
        folder=file.folder,
    )


def _move(parts: ParallelParts, old: Placement, new: Placement, expert_bytes: int) -> tuple[float, float]:
    """Seconds and bytes of bringing experts to where they are new: each from the nearest GPU that had it."""
    degrees, node = parts.degrees, parts.homes().node_of_rank
    bytes_between = np.zeros((degrees.ep, degrees.ep))
    for layer in range(old.num_layers):
        held = np.zeros((degrees.ep, old.num_experts), dtype=bool)
        held[old.rank[layer], old.logical[layer]] = True
        wanted = np.zeros_like(held)
        wanted[new.rank[layer], new.logical[layer]] = True
        for rank, expert in np.argwhere(wanted & ~held):
            owners = np.flatnonzero(held[:, expert])
            near = owners[np.lexsort((np.abs(owners - rank), node[owners] != node[rank]))[0]]
            bytes_between[near, rank] += expert_bytes
    gpus = np.kron(bytes_between / degrees.expert_tp, np.eye(degrees.expert_tp))
    ports = Ports(parts.topology, degrees.stage)
    return float((ports.loads(gpus) / ports.rate).max(initial=0.0)), float(bytes_between.sum())
