"""What a parallel scenario names, loaded; and the degrees of parallelism, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moesim.errors import CardError, Fault, ScenarioError, nearest
from moesim.hardware import GpuSpec, NetworkSpec, load_cluster, load_gpu, load_network, load_node_card
from moesim.hardware.fits import Fit, FitKey
from moesim.hardware.override import overridden
from moesim.hardware.topology import Topology, build_topology
from moesim.models import ModelSpec, Precisions, load_model
from moesim.policies.api import Policy
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parallel.schema import ParallelSpec
from moesim.scenario.parts import Gathering, fits_of, load_policy, precisions_of
from moesim.scenario.workload import routing_for, synthetic_for
from moesim.setup.traffic import Homes
from moesim.traces import RoutingTrace, load_trace


@dataclass(frozen=True)
class Degrees:
    """How many GPUs share what. ``gpus = pp * dp * tp = pp * ep * expert_tp``."""

    gpus: int
    tp: int
    dp: int
    pp: int
    ep: int
    expert_tp: int

    @property
    def stage(self) -> int:
        """GPUs of a pipeline's stage."""
        return self.gpus // self.pp


@dataclass(frozen=True)
class ParallelParts:
    """What the scenario names. ``source``: the trace as its file has it; ``trace``: as the model's routing; ``fits``:
    constants of its kernels, None for the shipped ones.
    """

    model: ModelSpec
    topology: Topology
    source: RoutingTrace
    trace: RoutingTrace
    placement: Policy
    precisions: Precisions
    degrees: Degrees
    fits: Mapping[FitKey, Fit] | None = None

    @property
    def gpu(self) -> GpuSpec:
        """The cluster's GPU."""
        return self.topology.gpu

    def homes(self) -> Homes:
        """The GPUs of a stage."""
        return Homes(self.degrees.stage, self.degrees.expert_tp, self.topology.node_of[: self.degrees.stage])

    @property
    def slots_per_rank(self) -> int:
        """Physical experts of a rank, where they are dealt out evenly."""
        return -(-self.model.num_experts // self.degrees.ep)


def load_parallel_parts(file: ScenarioFile, known: ParallelParts | None = None) -> ParallelParts:
    """Load every part of a parallel scenario.

    Args:
        known: parts of a scenario with the same model, trace and hardware, not to be loaded again.

    Raises:
        ScenarioError: with the faults of all parts.
    """
    scenario, gathering = file.scenario, Gathering(file)
    parallel = scenario.parallel
    assert parallel is not None
    model = gathering.load(("model",), lambda: load_model(scenario.model))
    topology = known.topology if known else gathering.load(("hardware",), lambda: _topology(file))
    choice = scenario.policies.placement
    policy = gathering.load(("policies", "placement"), lambda: load_policy(file, "placement", choice))
    precisions = precisions_of(gathering, scenario, model)
    gathering.stop()
    source = known.source if known else gathering.load(("trace", "file"), lambda: _source(file, model))
    gathering.stop()
    if known is not None or scenario.trace.synthetic is not None:
        trace = known.trace if known else source
    else:
        trace = gathering.load(("trace",), lambda: routing_for(source, model, scenario))
    degrees = gathering.load(("parallel",), lambda: degrees_of(parallel, topology, model))
    fits = gathering.load(("hardware", "fits"), lambda: fits_of(file))
    gathering.stop()
    return ParallelParts(model, topology, source, trace, policy, precisions, degrees, fits)


def _source(file: ScenarioFile, model: ModelSpec) -> RoutingTrace:
    """The routing that the scenario names, or has made by chance."""
    scenario = file.scenario
    if scenario.trace.synthetic is not None:
        return synthetic_for(model, scenario.trace.synthetic, scenario.seed)
    return load_trace(file.folder / scenario.trace.file)


def _topology(file: ScenarioFile) -> Topology:
    wanted = file.scenario.hardware
    if wanted.cluster is None:
        raise CardError.of("cluster", "a scenario with `parallel` needs a cluster", "`moesim hardware list`")
    others = [name for name in ("node", "gpu", "cpu", "link", "storage", "host_memory") if getattr(wanted, name)]
    if others:
        raise CardError.of(others[0], "a cluster brings its own parts", f"leave out {', '.join(others)}")
    spec = load_cluster(wanted.cluster)
    gpu_name = load_node_card(spec.node).gpu
    networks, gpu = _overridden(wanted.override, gpu_name)
    return build_topology(spec, wanted.nodes, networks, gpu)


def _overridden(overrides: Mapping[str, str | float], gpu_name: str) -> tuple[dict[str, NetworkSpec], GpuSpec]:
    """Network cards and the GPU with the user's numbers, as in ``{network.ib-ndr-400.bandwidth: 40 GB/s}``."""
    gpu = load_gpu(gpu_name)
    networks: dict[str, NetworkSpec] = {}
    for path, value in overrides.items():
        part, _, rest = path.partition(".")
        if part == "gpu":
            gpu = overridden(gpu, rest.split("."), value)
        elif part == "network":
            name, _, number = rest.rpartition(".")
            networks[name] = overridden(networks.get(name) or load_network(name), [number], value)
        else:
            raise CardError.of(
                path, "an override of a cluster starts with gpu or network", nearest(part, ["gpu", "network"])
            )
    return networks, gpu


def degrees_of(parallel: ParallelSpec, topology: Topology, model: ModelSpec) -> Degrees:
    """The degrees, with what is left out filled in.

    Raises:
        ScenarioError: they don't multiply to the same number of GPUs, or don't divide the model.
    """
    gpus = parallel.gpus or topology.num_gpus
    faults = []
    if gpus > topology.num_gpus:
        faults.append(Fault("gpus", f"{topology.name} has {topology.num_gpus} GPUs (got {gpus})", "more nodes"))
    stage, rest = divmod(gpus, parallel.pp)
    if rest:
        faults.append(Fault("pp", f"{gpus} GPUs don't divide into {parallel.pp} stages"))
    dp = parallel.dp or max(stage // parallel.tp, 1)
    ep = parallel.ep or max(stage // parallel.expert_tp, 1)
    if dp * parallel.tp != stage:
        faults.append(Fault("dp", f"dp {dp} times tp {parallel.tp} is not {stage} GPUs", "leave dp out"))
    if ep * parallel.expert_tp != stage:
        faults.append(Fault("ep", f"ep {ep} times expert_tp {parallel.expert_tp} is not {stage} GPUs", "leave ep out"))
    faults += _of_model(parallel, model, ep)
    if faults:
        raise ScenarioError(faults)
    return Degrees(gpus, parallel.tp, dp, parallel.pp, ep, parallel.expert_tp)


def _of_model(parallel: ParallelSpec, model: ModelSpec, ep: int) -> list[Fault]:
    faults, slots = [], model.num_experts + parallel.redundant_experts
    if slots % ep:
        told = f"{slots} slots of a layer don't divide over {ep} ranks"
        faults.append(
            Fault("redundant_experts", told, f"{-model.num_experts % ep} more than the experts, or a multiple")
        )
    if model.moe_intermediate_size % parallel.expert_tp:
        faults.append(Fault("expert_tp", f"{model.moe_intermediate_size} columns don't divide by {parallel.expert_tp}"))
    if parallel.pp > model.num_moe_layers:
        faults.append(Fault("pp", f"{model.name} has {model.num_moe_layers} MoE layers (got {parallel.pp} stages)"))
    batch, overlap, parts = parallel.batch, parallel.overlap, parallel.overlap.parts
    if batch.tokens_per_gpu % (batch.microbatches * parts):
        told = f"{batch.tokens_per_gpu} tokens don't divide into {batch.microbatches} microbatches of {parts} parts"
        faults.append(Fault("batch.tokens_per_gpu", told))
    if overlap.two_batches and overlap.pipeline != 1:
        faults.append(
            Fault("overlap.pipeline", "two batches and a pipeline of chunks exclude each other", "pipeline: 1")
        )
    faults += _of_coherent(parallel)
    slow = [gpu for gpu in parallel.stragglers.gpus if gpu >= (parallel.gpus or 10**9)]
    if slow:
        faults.append(Fault("stragglers.gpus", f"there is no GPU {slow[0]}"))
    return faults


def _of_coherent(parallel: ParallelSpec) -> list[Fault]:
    """What tokens that don't return exclude."""
    if not parallel.exchange.coherent:
        return []
    told = {
        "tp": (parallel.tp > 1, "each token has one home at a time", "tp: 1"),
        "expert_tp": (parallel.expert_tp > 1, "each token has one home at a time", "expert_tp: 1"),
        "pp": (parallel.pp > 1, "tokens don't return at a stage's end", "pp: 1"),
        "exchange.kind": (parallel.exchange.kind == "deepep-normal", "its form needs tokens at home", "kind: nccl"),
        "capacity.padded": (parallel.capacity.padded, "padding is counted with tokens at home", "padded: false"),
        "batch.phase": (parallel.batch.phase == "prefill", "prompts are not followed from GPU to GPU", "phase: decode"),
    }
    return [Fault(name, f"with exchange.coherent: {why}", hint) for name, (wrong, why, hint) in told.items() if wrong]


def layers_of_stage(
    model: ModelSpec, stage: int, stages: int
) -> tuple[range, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """All layers of a pipeline stage, and the places of its MoE layers among the model's MoE layers."""
    first, last = (number * model.num_layers // stages for number in (stage, stage + 1))
    indices = np.array(model.moe_layer_indices)
    return range(first, last), np.flatnonzero((indices >= first) & (indices < last))
