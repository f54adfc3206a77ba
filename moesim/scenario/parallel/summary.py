"""From what a parallel run left behind to its result. Every number is derived here; nothing is simulated."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moesim.engine.expert_parallel import SLOWER
from moesim.models import parameters
from moesim.results import metrics
from moesim.results.parallel import (
    ClusterFacts,
    ExchangeRow,
    LinkRow,
    Load,
    OffloadFigures,
    ParallelBottleneck,
    ParallelCounters,
    ParallelHeadline,
    ParallelMemoryRow,
    ParallelMemoryTable,
    ParallelResult,
)
from moesim.results.result import Bound, Kind, TimeShare
from moesim.scenario.inputs import model_facts_of, trace_facts_of
from moesim.scenario.parallel.evidence import computed, evidence_rows
from moesim.scenario.parallel.memory import CATEGORIES, ParallelMemory, verdict_of
from moesim.scenario.parallel.run import ParallelRun
from moesim.scenario.parallel.warnings import warnings_of
from moesim.setup.placement import imbalance
from moesim.version import __version__

Floats = NDArray[np.float64]
#: Traffic between more GPUs than these is shown between nodes.
MAX_SHOWN = 80


def summarise_parallel(run: ParallelRun) -> ParallelResult:
    """The result of a run, without the what-ifs and the replication study (``studies.replication`` adds them)."""
    built = run.built
    scenario = built.file.scenario.model_dump(mode="json")
    evidence = evidence_rows(run)
    kinds: dict[Kind, float] = {}
    for row in evidence:
        kinds[row.kind] = kinds.get(row.kind, 0.0) + row.share
    breakdown = breakdown_of(run)
    model, precisions = built.parts.model, built.parts.precisions
    expert_bytes = parameters.expert_bytes(model, precisions.experts)
    return ParallelResult(
        moesim_version=__version__,
        question=built.file.scenario.question,
        scenario=scenario,
        scenario_sha256=hashlib.sha256(json.dumps(scenario, sort_keys=True).encode()).hexdigest(),
        seed=built.file.scenario.seed,
        model=model_facts_of(model, precisions, expert_bytes),
        hardware=_cluster(run),
        trace=trace_facts_of(built.parts.trace, built.parts.source),
        degrees=vars(built.parts.degrees).copy(),
        policies={"placement": built.parts.placement.describe()},
        headline=headline_of(run),
        bottleneck=bottleneck_of(breakdown),
        bounds=_bounds(run),
        breakdown=breakdown,
        exchanges=_exchanges(run),
        links=_links(run),
        load=load_of(run),
        memory=memory_table(built.memory),
        replication=None,
        flow_check=None,
        offload=_offload(run),
        counters=_counters(run),
        step_s=run.step_s.tolist(),
        step_imbalance=step_imbalance(run).tolist(),
        evidence=evidence,
        evidence_shares=kinds,
        warnings=list(warnings_of(run)),
    )


def _cluster(run: ParallelRun) -> ClusterFacts:
    topology = run.built.parts.topology
    between = topology.spec.between
    return {
        "name": topology.name,
        "gpu": topology.gpu.title,
        "gpus": run.built.parts.degrees.gpus,
        "nodes": -(-run.built.parts.degrees.gpus // topology.gpus_per_node),
        "gpus_per_node": topology.gpus_per_node,
        "inside": topology.spec.inside.network,
        "between": between.network if between and topology.num_nodes > 1 else None,
    }


def step_imbalance(run: ParallelRun) -> Floats:
    """Fullest rank over the mean, mean over parts and layers of all stages. [steps]"""
    batch = run.built.parallel.batch
    found = [imbalance(stage.counts.routed).mean(axis=(1, 2)) for stage in run.built.stages]
    return np.asarray(np.mean(found, axis=0).reshape(batch.steps, batch.microbatches).mean(axis=1))


def headline_of(run: ParallelRun) -> ParallelHeadline:
    """Rates, waits and balance."""
    built, whole = run.built, float(run.step_s.sum())
    degrees, batch = built.parts.degrees, built.parallel.batch
    tokens = batch.steps * degrees.stage * batch.tokens_per_gpu
    spread = metrics.distribution(run.step_s)
    assert spread is not None
    pairs = sum(stage.counts.pairs_total for stage in built.stages)
    waits = run.waits_s
    return ParallelHeadline(
        step_s=spread,
        tokens_per_s=tokens / whole,
        tokens_per_s_per_gpu=tokens / whole / degrees.gpus,
        imbalance=float(step_imbalance(run).mean()),
        exposed_share=(waits.get("dispatch", 0.0) + waits.get("combine", 0.0)) / whole,
        waiting_share=waits.get(SLOWER, 0.0) / whole,
        dropped_share=sum(stage.counts.dropped for stage in built.stages) / max(pairs, 1),
        reached_gpus=float(np.mean([stage.counts.reached for stage in built.stages])),
        fits=built.memory.fits,
    )


def breakdown_of(run: ParallelRun) -> list[TimeShare]:
    """Computing by what, then waiting by cause; parts without time left out."""
    parts = computed(run)
    scale = run.busy_s / (sum(parts.values()) or 1.0)
    seconds = {name: value * scale for name, value in parts.items()}
    seconds |= {f"waiting: {cause}": value for cause, value in run.waits_s.items()}
    return metrics.time_shares(seconds)


def bottleneck_of(breakdown: list[TimeShare]) -> ParallelBottleneck:
    """The part with the largest share; dispatch and combine count together."""
    shares: dict[str, float] = {}
    for part in breakdown:
        name = "dispatch and combine" if part.name in ("waiting: dispatch", "waiting: combine") else part.name
        shares[name] = shares.get(name, 0.0) + part.share
    worst = max(shares, key=lambda name: shares[name])
    return ParallelBottleneck(bound_by=worst, share=shares[worst], what_if=None)


def _bounds(run: ParallelRun) -> list[Bound]:
    """What no schedule of these operations, and no placement of these experts, could beat."""
    built = run.built
    batch = built.parallel.batch
    busiest = np.stack([outcome.busy_s.max(axis=1) for outcome in run.outcomes], axis=1)
    alone = busiest.reshape(batch.steps, batch.microbatches, -1).sum(axis=1).max(axis=1)
    pairs = np.concatenate([stage.counts.routed.sum(axis=1) for stage in built.stages], axis=1)
    return [
        Bound(
            name="the busiest GPU's own work",
            meaning="no overlap, however good, makes a step shorter than what its busiest GPU computes",
            status="bound only",
            value=float(alone.mean()) * 1e3,
            unit="ms/step",
            ours=float(run.step_s.mean()) * 1e3,
        ),
        Bound(
            name="equal load of all ranks",
            meaning="no placement gives its fullest rank fewer (token, expert) pairs of a layer than the mean",
            status="bound only",
            value=float(pairs.mean()),
            unit="pairs",
            ours=float(pairs.max(axis=-1).mean()),
        ),
    ]


def _exchanges(run: ParallelRun) -> list[ExchangeRow]:
    stages = len(run.outcomes)
    rows = []
    for name in dict.fromkeys(name for outcome in run.outcomes for name in outcome.exchange_s):
        busy = sum(float(outcome.exchange_s[name].mean(axis=1).sum()) for outcome in run.outcomes) / stages
        exposed = min(run.waits_s.get(name, 0.0), busy)
        layers = [
            outcome.layer_exchange_s[name].ravel() for outcome in run.outcomes if name in outcome.layer_exchange_s
        ]
        spread = metrics.distribution(np.concatenate(layers)) if layers else None
        if spread is not None:
            rows.append(
                ExchangeRow(
                    name=name, busy_s=busy, exposed_s=exposed, hidden_s=max(busy - exposed, 0.0), per_layer_s=spread
                )
            )
    return rows


def _links(run: ParallelRun) -> list[LinkRow]:
    """Use of links by level and speed: bytes over what they could have moved in the run's time."""
    links, whole = run.built.parts.topology.links, float(run.step_s.sum())
    carried = sum((stage.counts.link_bytes for stage in run.built.stages), start=np.zeros(len(links)))
    kinds: dict[tuple[str, str, float], list[int]] = {}
    for number, link in enumerate(links):
        kinds.setdefault((link.level, link.network, link.alltoall_bytes_per_s), []).append(number)
    rows = []
    for (level, network, rate), numbers in kinds.items():
        busy = carried[numbers] / (rate * whole)
        rows.append(
            LinkRow(
                level=level,
                network=network,
                links=len(numbers),
                bytes_per_s=rate,
                total_bytes=float(carried[numbers].sum()),
                mean_busy_share=float(busy.mean()),
                max_busy_share=float(busy.max()),
                fullest=links[numbers[int(np.argmax(busy))]].name,
            )
        )
    return rows


def load_of(run: ParallelRun) -> Load:
    """Loads of ranks and traffic, over all stages."""
    built = run.built
    routed = [stage.counts.routed.sum(axis=(0, 1)) for stage in built.stages]  # [layers, ranks] each
    layers = np.concatenate(routed)
    mean = np.maximum(layers.mean(axis=1, keepdims=True), 1e-12)
    spread = np.concatenate([imbalance(stage.counts.routed).mean(axis=(0, 1)) for stage in built.stages])
    items = sum((stage.counts.items for stage in built.stages), start=np.zeros_like(built.stages[0].counts.items))
    model = built.parts.model
    per_item = {"bf16": 2.0, "fp8": 1.0, "fp32": 4.0}[built.parallel.exchange.dispatch] * model.hidden_size
    traffic, local = items * per_item, built.parts.topology.gpus_per_node
    shown = len(traffic) <= MAX_SHOWN
    if not shown:
        nodes = len(traffic) // local
        traffic = traffic.reshape(nodes, local, nodes, local).sum(axis=(1, 3))
    return Load(
        layer_rank_share=(layers / mean).round(6).tolist(),
        rank_pairs=layers.sum(axis=0).tolist(),
        layer_imbalance=spread.tolist(),
        traffic_bytes=traffic.tolist(),
        unit="GPU" if shown else "node",
    )


def memory_table(memory: ParallelMemory) -> ParallelMemoryTable:
    """Uses of GPU memory, and the verdict in words."""
    needed = memory.needed
    fullest = int(np.argmax(needed))
    rows = [
        ParallelMemoryRow(
            name=name,
            fullest_gpu_bytes=float(memory.uses[name][fullest]),
            mean_bytes=float(memory.uses[name].mean()),
        )
        for name in CATEGORIES
    ]
    most, has = float(needed[fullest]), memory.total
    return ParallelMemoryTable(
        rows=rows, fullest_gpu=fullest, needed_bytes=most, total_bytes=has, fits=memory.fits, verdict=verdict_of(memory)
    )


def _offload(run: ParallelRun) -> OffloadFigures | None:
    built, cached = run.built, run.built.cached
    found = [stage.fetched for stage in built.stages if stage.fetched is not None]
    if cached is None or not found or built.memory.host is None:
        return None
    lookups, fetches = sum(each.lookups for each in found), sum(int(each.fetches.sum()) for each in found)
    needed, has = built.memory.host
    return OffloadFigures(
        caching=cached.policy.name,
        slots_per_gpu=cached.slots,
        lookups=lookups,
        fetches=fetches,
        hit_rate_per_lookup=1 - fetches / lookups if lookups else None,
        fetched_bytes=fetches * cached.expert_bytes * built.parts.degrees.expert_tp,
        host_needed_bytes=needed,
        host_total_bytes=has,
    )


def _counters(run: ParallelRun) -> ParallelCounters:
    built, batch = run.built, run.built.parallel.batch
    placements = built.plan.placements
    changes = sum(one is not other for one, other in pairwise(placements))
    return ParallelCounters(
        steps=batch.steps,
        passes=batch.steps * batch.microbatches,
        tokens=batch.steps * built.parts.degrees.stage * batch.tokens_per_gpu,
        pairs=sum(stage.counts.pairs_total for stage in built.stages),
        dropped=sum(stage.counts.dropped for stage in built.stages),
        rebalances=changes,
        moved_bytes=int(built.plan.moved_bytes.sum()),
        trace_reuse=built.batch.reuse,
    )
