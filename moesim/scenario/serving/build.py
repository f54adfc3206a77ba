"""From a serving scenario to what an engine runs: parts loaded and fitted together, memory shared out, steps priced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from moesim.costs.resident import Parallel, Resident, Software
from moesim.costs.transfer import transfer_s
from moesim.errors import ScenarioError
from moesim.hardware import GpuSpec, Node, load_network
from moesim.models import ModelSpec, Precisions, load_model, parameters
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parts import Gathering, fits_of, node_of, precisions_of
from moesim.scenario.schema import NO_TRACE, Scenario
from moesim.scenario.serving.arrivals import Workload
from moesim.scenario.serving.fidelity import StepError, step_error
from moesim.scenario.serving.memory import GpuMemory, gpu_memory
from moesim.scenario.serving.offloaded import Offloaded, offloaded
from moesim.scenario.serving.routing import Routed, routed, unrouted
from moesim.scenario.serving.schema import ArrivalsSpec, ServingSpec
from moesim.scenario.serving.tables import Tables, scaled, tables_of
from moesim.scenario.workload import routing_for, synthetic_for
from moesim.setup.serving import Limits, ServingSetup
from moesim.traces import RoutingTrace, load_trace
from moesim.units import parse


@dataclass(frozen=True)
class BuiltServing:
    """A serving scenario ready to run, with what a Result has to say about its inputs.

    Attributes:
        trace: the routing after its transforms; None where the model has no experts. ``source_sha256``: of its file.
        gpu: with the network that joins the GPUs of a replica.
        error: how far the tables are from the forms.
        offloaded: what the offloading engine found; None where all experts are on GPUs.
    """

    file: ScenarioFile
    model: ModelSpec
    node: Node
    gpu: GpuSpec
    precisions: Precisions
    trace: RoutingTrace | None
    source_sha256: str
    parallel: Parallel
    memory: GpuMemory
    tables: Tables
    error: StepError
    setup: ServingSetup
    warnings: tuple[str, ...]
    offloaded: Offloaded | None = None

    @property
    def serving(self) -> ServingSpec:
        """The scenario's section."""
        assert self.file.scenario.serving is not None
        return self.file.scenario.serving

    @property
    def arrivals(self) -> ArrivalsSpec:
        """The scenario's section."""
        assert self.file.scenario.arrivals is not None
        return self.file.scenario.arrivals

    @property
    def replicas(self) -> int:
        """All of them, those that only decode included."""
        return self.setup.limits.replicas + self.setup.limits.decoders


def build_serving(file: ScenarioFile) -> BuiltServing:
    """Evaluate a serving scenario.

    Raises:
        ScenarioError: with every fault of the parts at once, then of how they fit together.
    """
    scenario, gathering = file.scenario, Gathering(file)
    serving, arrivals = scenario.serving, scenario.arrivals
    assert serving is not None
    assert arrivals is not None
    if serving.engine == "offload":
        return _offloading(file, serving, arrivals)
    model = gathering.load(("model",), lambda: load_model(scenario.model))
    node = gathering.load(("hardware",), lambda: node_of(scenario))
    fits = gathering.load(("hardware", "fits"), lambda: fits_of(file))
    precisions = precisions_of(gathering, scenario, model)
    gathering.load(("arrivals", "file"), lambda: _check_arrivals(file, arrivals))
    gathering.load(("serving", "disaggregation", "network"), lambda: _check_networks(serving))
    source = gathering.load(("trace", "file"), lambda: _source(file))
    gathering.stop()
    trace = gathering.load(("trace",), lambda: _routing(source, model, scenario))
    gpu = gathering.load(("serving", "network"), lambda: _joined(node.gpu, serving))
    parallel = Parallel(**serving.parallel.model_dump())
    gathering.load(("serving", "parallel"), lambda: parallel.check(model))
    gathering.stop()
    memory = gathering.load((), lambda: _memory(scenario, serving, model, gpu, precisions, parallel))
    gathering.stop()
    price = gathering.load(
        ("serving", "parallel"), lambda: Resident(model, precisions, gpu, parallel, _software(serving), fits)
    )
    gathering.stop()
    routing = unrouted() if trace is None else routed(trace, parallel.ep)
    tables, longest = _tables(price, serving, memory, routing)
    limits = _limits(serving, arrivals, memory)
    workload = Workload(arrivals, file.folder, scenario.seed, routing.sources)
    return BuiltServing(
        file=file,
        model=model,
        node=node,
        gpu=gpu,
        precisions=precisions,
        trace=trace,
        source_sha256=source.sha256 if source is not None else "",
        parallel=parallel,
        memory=memory,
        tables=tables,
        error=step_error(price, tables.costs, _exchange(serving), limits, longest, scenario.seed),
        setup=ServingSetup(scaled(tables.costs, serving.time_scale), routing.routing, limits, workload),
        warnings=tuple(_warnings(scenario, model, node, trace, routing, parallel)),
    )


def _offloading(file: ScenarioFile, serving: ServingSpec, arrivals: ArrivalsSpec) -> BuiltServing:
    """A scenario whose experts are offloaded: steps as the offloading engine takes them."""
    gathering = Gathering(file)
    gathering.load(("arrivals", "file"), lambda: _check_arrivals(file, arrivals))
    found = gathering.load((), lambda: offloaded(file))
    gathering.stop()
    parts, trace = found.built.parts, found.built.trace
    limits = _limits(serving, arrivals, found.memory)
    workload = Workload(arrivals, file.folder, file.scenario.seed, 0)
    setup = ServingSetup(scaled(found.tables.costs, serving.time_scale), unrouted().routing, limits, workload)
    return BuiltServing(
        file=file,
        model=parts.model,
        node=parts.node,
        gpu=parts.node.gpu,
        precisions=parts.precisions,
        trace=trace,
        source_sha256=parts.source.sha256,
        parallel=Parallel(),
        memory=found.memory,
        tables=found.tables,
        error=found.error,
        setup=setup,
        warnings=found.warnings,
        offloaded=found,
    )


def _source(file: ScenarioFile) -> RoutingTrace | None:
    if file.scenario.trace.file == NO_TRACE:
        return None
    path = file.folder / file.scenario.trace.file
    return _loaded(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=1)
def _loaded(path: Path, changed_ns: int) -> RoutingTrace:  # noqa: ARG001 - a changed file is another one
    """A trace's file, read once for many runs of one process."""
    return load_trace(path)


def _routing(source: RoutingTrace | None, model: ModelSpec, scenario: Scenario) -> RoutingTrace | None:
    """The trace as the model's routing; out of chance where that is asked for; None without experts."""
    if not model.num_moe_layers:
        return None
    if source is not None:
        return routing_for(source, model, scenario)
    wanted = scenario.trace.synthetic
    if wanted is None:
        told = f"{model.name} has experts, so its routing must come from somewhere"
        raise ScenarioError.of("trace", told, "name a trace, or say trace: {file: none, synthetic: {}}")
    return synthetic_for(model, wanted, scenario.seed)


def _joined(gpu: GpuSpec, serving: ServingSpec) -> GpuSpec:
    """The GPU with the network that joins it to the others of its replica.

    Raises:
        ScenarioError, CardError: a replica of several GPUs needs one, and there is none.
    """
    if serving.network is not None:
        load_network(serving.network)
        return gpu.model_copy(update={"nvlink": serving.network})
    spec = serving.parallel
    if spec.tp * spec.dp * spec.pp > 1 and gpu.nvlink is None:
        told = f"{gpu.title} has no network of its own to other GPUs"
        raise ScenarioError.of("serving.network", told, "name one, as in serving: {network: ib-ndr-400}")
    return gpu


def _check_networks(serving: ServingSpec) -> None:
    if serving.disaggregation is not None:
        load_network(serving.disaggregation.network)


def _check_arrivals(file: ScenarioFile, arrivals: ArrivalsSpec) -> None:
    """Read the first requests of a file, so that a wrong one is told before anything runs."""
    if arrivals.file is not None:
        next(Workload(arrivals, file.folder, 0, 0)())


def _memory(
    scenario: Scenario, serving: ServingSpec, model: ModelSpec, gpu: GpuSpec, precisions: Precisions, parallel: Parallel
) -> GpuMemory:
    return gpu_memory(
        model,
        precisions,
        parallel,
        total=gpu.memory.value,
        utilization=serving.gpu_memory_utilization,
        reserve=round(parse(scenario.memory.gpu_reserve, "bytes")),
        kv_tokens=serving.kv_tokens,
    )


def _software(serving: ServingSpec) -> Software:
    assert serving.engine != "offload"
    return Software(serving.engine)


def _exchange(serving: ServingSpec) -> str | None:
    return None if serving.exchange == "all-reduce" else serving.exchange


def _tables(price: Resident, serving: ServingSpec, memory: GpuMemory, routing: Routed) -> tuple[Tables, int]:
    """The tables, and the longest context that they are for."""
    longest = int(min(max(memory.kv_tokens // price.parallel.dp, 2), 2**20))
    copies = price.parallel.dp
    tokens, requests = serving.max_num_batched_tokens * copies, serving.max_num_seqs * copies
    return tables_of(price, _exchange(serving), tokens, requests, longest, routing.layers), longest


def _limits(serving: ServingSpec, arrivals: ArrivalsSpec, memory: GpuMemory) -> Limits:
    copies, apart = serving.parallel.dp, serving.disaggregation
    latency_s = token_s = 0.0
    if apart is not None:
        network = load_network(apart.network)
        gpus = serving.parallel.tp * serving.parallel.dp * serving.parallel.pp
        latency_s = network.latency.value
        token_s = float(transfer_s(np.float64(memory.token_bytes * gpus), 0.0, network.bandwidth.value * gpus))
    return Limits(
        tokens=serving.max_num_batched_tokens * copies,
        requests=serving.max_num_seqs * copies,
        block_tokens=serving.block_size,
        blocks=max(memory.kv_tokens // serving.block_size, 1),
        chunked=serving.chunked_prefill,
        shared_prefix=serving.shared_prefix,
        replicas=serving.replicas,
        decoders=apart.decode_replicas if apart is not None else 0,
        least_loaded=serving.routing == "least-loaded",
        users=arrivals.users or 0,
        window=serving.window if serving.batching == "alike" else 1,
        transfer_latency_s=latency_s,
        transfer_token_s=token_s,
    )


def _warnings(
    scenario: Scenario,
    model: ModelSpec,
    node: Node,
    trace: RoutingTrace | None,
    routing: Routed,
    parallel: Parallel,
) -> Sequence[str]:
    told = list(routing.warnings)
    labels = trace.card.labels if trace is not None else ()
    if "synthetic" in labels:
        told.append("synthetic: the routing was generated, not captured.")
    elif trace is not None and "stand-in" in labels:
        told.append(
            f"stand-in: the routing was recorded from {trace.card.model}, not from {model.name} "
            f"({', '.join(trace.card.transforms)}). Rates and seconds are those of a similar workload."
        )
    if scenario.serving is not None and scenario.serving.time_scale != 1:
        told.append(f"time_scale: every step takes {scenario.serving.time_scale:g} times what the cost forms say.")
    if scenario.serving is not None and scenario.serving.batching == "alike":
        told.append("batching 'alike': which experts an answer will use is known from the trace, not predicted.")
    if parallel.pp > 1:
        told.append("pipeline: stages run one after the other for each step; no second batch fills the gaps.")
    if parallel.dp > 1:
        told.append("dp: requests and tokens of a step are spread evenly over the copies of attention.")
    if any(parameters.attention_window(model, layer) for layer in range(model.num_layers)):
        told.append("window: layers that see a window are given KV cache for the whole context.")
    if parallel.gpus > node.gpu_count:
        told.append(
            f"{node.name} has {node.gpu_count} GPUs and a replica {parallel.gpus}: all are priced as joined by one "
            "network, that of the GPU or serving.network."
        )
    if scenario.memory.gpu_experts != "auto":
        told.append("memory.gpu_experts: has no meaning where all experts are on the GPU.")
    return told
