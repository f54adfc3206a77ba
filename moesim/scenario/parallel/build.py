"""From a parallel scenario to what the engine runs: placement, traffic and prices, evaluated into arrays."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.part import Part
from moesim.engine.flows import flow_seconds
from moesim.errors import ScenarioError
from moesim.models import parameters
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parallel.batch import Batch, batch_of
from moesim.scenario.parallel.counts import Counts, Flows, StageCounter
from moesim.scenario.parallel.memory import ParallelMemory, memory_of
from moesim.scenario.parallel.offload import Cached, Fetched, cached_of, fetched
from moesim.scenario.parallel.parts import ParallelParts, layers_of_stage, load_parallel_parts
from moesim.scenario.parallel.placing import Plan, plan_of
from moesim.scenario.parallel.prices import Priced, Prices
from moesim.scenario.parallel.schema import ParallelSpec
from moesim.scenario.parts import Gathering, load_policy
from moesim.setup.parallel import Overlap, ParallelSetup

Floats = NDArray[np.float64]
#: Rows of a tile of a fused kernel (FlashMoE: 128 by 64).
TILE_ROWS = 128


@dataclass(frozen=True)
class Stage:
    """A pipeline stage: what the engine runs, and what it was made of.

    Attributes:
        speed: how many times as long each GPU's computations take. [passes, gpus]
        experts: the routed experts as priced. [passes, parts, layers, ranks]
        fetched: experts that GPUs brought from host memory; None where all are there.
    """

    setup: ParallelSetup
    counts: Counts
    priced: Priced
    experts: Part
    speed: Floats
    fetched: Fetched | None = None


@dataclass(frozen=True)
class BuiltParallel:
    """A parallel scenario ready to run. ``send_s``: hidden states from stage to stage, for each pass.

    ``cached``: how GPUs hold their experts where they don't hold all.
    """

    file: ScenarioFile
    parts: ParallelParts
    batch: Batch
    plan: Plan
    memory: ParallelMemory
    stages: tuple[Stage, ...]
    send_s: float
    cached: Cached | None = None

    @property
    def parallel(self) -> ParallelSpec:
        """The scenario's part ``parallel``."""
        assert self.file.scenario.parallel is not None
        return self.file.scenario.parallel


def build_parallel(file: ScenarioFile, known: ParallelParts | None = None) -> BuiltParallel:
    """Evaluate a parallel scenario.

    Args:
        known: parts of a scenario with the same model, trace and hardware.

    Raises:
        ScenarioError: with every fault of the parts at once, then of what they give.
    """
    parts, gathering = load_parallel_parts(file, known), Gathering(file)
    scenario, degrees = file.scenario, parts.degrees
    parallel = scenario.parallel
    assert parallel is not None
    batch = gathering.load((), lambda: batch_of(parts.trace, scenario, degrees.stage))
    gathering.stop()
    expert_bytes = parameters.expert_bytes(parts.model, parts.precisions.experts)
    plan = gathering.load(("policies", "placement"), lambda: plan_of(file, parts, batch, expert_bytes))
    gathering.stop()
    cached = gathering.load((), lambda: _cached(file, parts))
    gathering.stop()
    work = _Work(parts, parallel, batch, plan, Prices(parts, parallel, batch), cached)
    stages = tuple(_stage(work, number, scenario.seed) for number in range(degrees.pp))
    longest = parallel.batch.context or int(np.asarray(parts.trace.position)[batch.row].max()) + 1
    memory = memory_of(parts, parallel, plan.placements[0], longest, cached)
    return BuiltParallel(file, parts, batch, plan, memory, stages, _send_s(parts, parallel), cached)


@dataclass(frozen=True)
class _Work:
    """What every stage is built from."""

    parts: ParallelParts
    parallel: ParallelSpec
    batch: Batch
    plan: Plan
    prices: Prices
    cached: Cached | None


def _cached(file: ScenarioFile, parts: ParallelParts) -> Cached | None:
    wanted = file.scenario.memory.gpu_experts
    if wanted == "auto":
        return None
    return cached_of(parts, wanted, load_policy(file, "caching", file.scenario.policies.caching))


def _stage(work: _Work, number: int, seed: int) -> Stage:
    parts, parallel, batch, degrees = work.parts, work.parallel, work.batch, work.parts.degrees
    _, moe = layers_of_stage(parts.model, number, degrees.pp)
    first = number * degrees.stage
    flows = _simulated(parts, first) if parallel.exchange.flows == "simulated" else None
    placements = work.plan.placements
    counts = StageCounter(parts, parallel, batch, placements, moe, first, flows, work.cached is not None).count()
    priced = work.prices.stage(number, _held(counts, parallel))
    experts = expert_part(parts, parallel, work.prices, counts.pairs, counts.distinct, work.plan)
    speed = _speed(parallel, degrees.stage, first, len(counts.pairs), seed + number)
    setup = _setup(parts, parallel, counts, priced, experts, speed, work.prices)
    if work.cached is None or counts.used is None:
        return Stage(setup, counts, priced, experts, speed)
    of_pass = [placement for placement in placements for _ in range(parallel.batch.microbatches)]
    found = fetched(parts, work.cached, of_pass, moe, counts.used, work.plan.profile.load)
    setup = replace(setup, fetch_s=_on_gpus(parts, found.seconds), last_s=_last(setup, parts, counts))
    return Stage(setup, counts, priced, experts, speed, found)


def _held(counts: Counts, parallel: ParallelSpec) -> Floats | None:
    """Tokens of each GPU before each layer, over all chunks of a pipeline: attention has them together."""
    if counts.held is None or parallel.overlap.two_batches:
        return counts.held
    return np.asarray(counts.held.sum(axis=1, keepdims=True))


def _on_gpus(parts: ParallelParts, of_ranks: Floats) -> Floats:
    """[..., ranks] as [..., gpus]"""
    return np.repeat(of_ranks, parts.degrees.expert_tp, axis=-1)


def _last(setup: ParallelSetup, parts: ParallelParts, counts: Counts) -> Floats:
    """What one of a GPU's experts takes. [passes, parts, layers, gpus]"""
    return np.asarray(setup.experts_s / np.maximum(_on_gpus(parts, counts.distinct), 1.0))


def expert_part(
    parts: ParallelParts, parallel: ParallelSpec, prices: Prices, pairs: Floats, distinct: Floats, plan: Plan
) -> Part:
    """Routed experts on each rank. [passes, parts, layers, ranks]

    Behind a dispatch, a rank's kernels see its own pairs and nobody else's: as on a single GPU with so few experts.
    """
    model, degrees = parts.model, parts.degrees
    numbers = {
        "topk": model.top_k,
        "hidden": model.hidden_size,
        "width": model.moe_intermediate_size / degrees.expert_tp,
        "matrices": model.ffn_matrices,
        "local_experts": plan.placements[0].num_slots / degrees.ep,
        "ranks": 1,
        "gpus": 1,
    }
    work = {name: np.asarray(float(value)) for name, value in numbers.items()}
    work |= {"tokens": np.maximum(pairs / model.top_k, 1.0), "pairs": pairs, "distinct": distinct}
    part = prices.resident.kernels.moe_layer(work, parts.precisions.experts)
    if parallel.exchange.kind != "fused":
        return part
    launch = parts.gpu.kernel_launch.value
    return replace(part, terms={**part.terms, "launch": np.where(pairs > 0, launch, 0.0)})


def _setup(
    parts: ParallelParts,
    parallel: ParallelSpec,
    counts: Counts,
    priced: Priced,
    experts: Part,
    speed: Floats,
    prices: Prices,
) -> ParallelSetup:
    degrees, wanted = parts.degrees, parallel.overlap
    kind = parallel.exchange.kind
    one_sided = kind not in ("nccl", "hierarchical")
    slow = speed[:, None, None, :]
    before = np.repeat(priced.before_s, degrees.tp, axis=-1) * slow
    shared = np.repeat(priced.shared_s, degrees.tp, axis=-1) * slow
    return ParallelSetup(
        before_s=before,
        after_s=np.repeat(priced.after_s, degrees.tp, axis=-1) * speed[:, None],
        collective_s=priced.collective_s,
        shared_s=np.broadcast_to(shared, (*before.shape[:2], before.shape[2], degrees.stage)),
        experts_s=np.repeat(experts.seconds, degrees.expert_tp, axis=-1) * slow,
        shard_s=_shards(parts, counts, prices),
        dispatch=counts.dispatch,
        combine=counts.combine,
        tiles=np.maximum(np.repeat(np.ceil(counts.pairs / TILE_ROWS), degrees.expert_tp, axis=-1), 1.0),
        sync=parallel.exchange.sync or ("one-sided" if one_sided else "barrier"),
        overlap=Overlap(
            wanted.two_batches,
            1 if wanted.two_batches else wanted.parts,
            wanted.shared_experts,
            wanted.separate_links,
            kind == "fused",
        ),
        tensor_group=max(degrees.tp, degrees.expert_tp),
        gather_s=_gather(parts, parallel, prices, len(before)) if parallel.exchange.coherent else None,
    )


def _gather(parts: ParallelParts, parallel: ParallelSpec, prices: Prices, passes: int) -> Floats:
    """Every GPU gets every new token: within nodes as NCCL does it, between them over all NICs. [passes]

    ``max(all_gather form, latency + bytes of other nodes / NICs of a node)``
    """
    model, topology, gpus = parts.model, parts.topology, parts.degrees.stage
    kv = sum(parameters.kv_elements_per_token(model, layer) for layer in range(model.num_layers))
    each = kv * parts.precisions.kv_bytes_per_element if parallel.exchange.coherent == "kv" else 2 * model.hidden_size
    num_bytes = float(each * parallel.batch.tokens_per_gpu // parallel.batch.microbatches * gpus)
    local = min(topology.gpus_per_node, gpus)
    seconds = float(prices.resident.kernels.collective("all_gather", num_bytes, local).seconds)
    nics = [link for link in topology.links if link.level == "network" and link.source.startswith("n0.")]
    if gpus > local and nics:
        arriving = num_bytes * (1 - local / gpus)
        seconds = max(seconds, nics[0].latency_s + arriving / sum(link.bytes_per_s for link in nics))
    return np.full(passes, seconds)


def _shards(parts: ParallelParts, counts: Counts, prices: Prices) -> Floats:
    """All-gather of a rank's tokens to the GPUs that share its experts, and reduce-scatter of their outputs."""
    shards = parts.degrees.expert_tp
    if shards == 1:
        return np.zeros(counts.gathered.shape)
    num_bytes = counts.gathered * 2 * parts.model.hidden_size
    names = ("all_gather", "reduce_scatter")
    kernels = prices.resident.kernels
    return sum((kernels.collective(name, num_bytes, shards).seconds for name in names), start=np.zeros(num_bytes.shape))


def _speed(parallel: ParallelSpec, gpus: int, first: int, passes: int, seed: int) -> Floats:
    """How many times as long computations take: stragglers by name, and each GPU's luck in each pass."""
    wanted = parallel.stragglers
    speed = np.ones((passes, gpus))
    for gpu in wanted.gpus:
        if first <= gpu < first + gpus:
            speed[:, gpu - first] *= wanted.slowdown
    if wanted.jitter:
        rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"jitter")]))
        speed *= 1 + wanted.jitter * np.abs(rng.standard_normal(speed.shape))
    return speed


def _simulated(parts: ParallelParts, first: int) -> Flows:
    if parts.degrees.stage > 128:
        told = f"simulated flows between {parts.degrees.stage} GPUs would take too long"
        raise ScenarioError.of("parallel.exchange.flows", told, "flows: ports")
    return lambda num_bytes: flow_seconds(parts.topology, num_bytes, first)


def _send_s(parts: ParallelParts, parallel: ParallelSpec) -> float:
    """Hidden states of a pass to the next stage: each GPU to its like, over the path's slowest link."""
    degrees = parts.degrees
    if degrees.pp == 1:
        return 0.0
    path = parts.topology.path(0, degrees.stage)
    num_bytes = 2 * parts.model.hidden_size * parallel.batch.tokens_per_gpu / parallel.batch.microbatches
    slowest = parts.topology.bottleneck(0, degrees.stage)
    return max(link.latency_s for link in path) + num_bytes / slowest.bytes_per_s
