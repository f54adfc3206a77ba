"""From a scenario to what an engine runs: cards, trace and policies loaded, everything priced."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from moesim.costs import evidence
from moesim.costs.devices import arithmetic
from moesim.costs.node_times import Precisions, Times, node_times
from moesim.errors import Fault, MoesimError, ScenarioError
from moesim.hardware import Node, build_node
from moesim.models import ModelSpec, load_model, parameters
from moesim.models.precision import Precision, get_precision
from moesim.policies import api
from moesim.policies.api import Policy
from moesim.scenario.load import ScenarioFile
from moesim.scenario.schema import PolicyChoice, Scenario
from moesim.scenario.workload import routing_for, split_requests, steps_of, uses_in_training, warmup_steps
from moesim.setup import MemoryPlan, Setup, TierSetup, plan_memory
from moesim.traces import RoutingTrace, load_trace
from moesim.traces.steps import Steps
from moesim.traces.trace import DECODE
from moesim.traces.visits import Visits, visits_of
from moesim.units import parse

Part = TypeVar("Part")
Ints = NDArray[np.int64]
#: Single operations beyond these come from a slip in a number; sums of them would leave what floats can hold.
LONGEST_S, SHORTEST_S = 1e9, 1e-15


@dataclass(frozen=True)
class Built:
    """A scenario ready to run, with what a Result has to say about its inputs.

    Attributes:
        file: the scenario.
        setup: what the engine runs.
        prefetch: the policy that made the setup's candidates.
        model, node, trace: what it was built from; the trace after its transforms.
        source_trace_sha256: of the trace's file.
        precisions: how weights are stored.
        memory: what fits where.
        terms: the constants that each part of the time rests on.
        warnings: what a reader must know beside the numbers.
    """

    file: ScenarioFile
    setup: Setup
    prefetch: Policy
    model: ModelSpec
    node: Node
    trace: RoutingTrace
    source_trace_sha256: str
    precisions: Precisions
    memory: MemoryPlan
    terms: Mapping[str, evidence.Term]
    warnings: tuple[str, ...]


class _Parts:
    """Loads parts one by one and keeps their faults, so that all are told at once."""

    def __init__(self, file: ScenarioFile):
        self._file = file
        self.faults: list[Fault] = []

    def load(self, keys: Sequence[str], loader: Callable[[], Part]) -> Part | None:
        """The part, or None and its faults placed at ``keys``."""
        try:
            return loader()
        except MoesimError as error:
            self.faults.extend(self._file.fault(keys, fault) for fault in error.faults)
            return None

    def stop_at_faults(self) -> None:
        """Raise what was found, if anything was."""
        if self.faults:
            raise ScenarioError(self.faults)


def build(file: ScenarioFile) -> Built:
    """Evaluate a scenario.

    Raises:
        ScenarioError: with every fault of the parts at once, then of how they fit together.
    """
    scenario, parts = file.scenario, _Parts(file)
    model = parts.load(("model",), lambda: load_model(scenario.model))
    node = parts.load(("hardware",), lambda: _node(scenario))
    source = parts.load(("trace", "file"), lambda: load_trace(file.folder / scenario.trace.file))
    policies = {
        key: parts.load(("policies", key), partial(api.load, family, choice.name, choice.params))
        for key, family, choice in _choices(scenario)
    }
    precisions = _precisions(parts, scenario, model)
    parts.stop_at_faults()
    assert model is not None
    assert node is not None
    assert source is not None
    assert precisions is not None
    chosen = {key: policy for key, policy in policies.items() if policy is not None}

    trace = parts.load(("trace",), lambda: routing_for(source, model, scenario))
    parts.stop_at_faults()
    assert trace is not None
    split = parts.load((), lambda: split_requests(trace, scenario))
    uses = None if split is None else uses_in_training(trace, split)
    has_training = split is None or bool(split.training)
    parts.load((), lambda: _check_policies(scenario, chosen, node, has_training))
    parts.stop_at_faults()
    assert split is not None

    steps = parts.load(("workload",), lambda: steps_of(trace, split, scenario))
    parts.stop_at_faults()
    assert steps is not None
    warm = parts.load((), lambda: warmup_steps(steps, trace, split))
    visits = visits_of(trace, steps)
    sizes = np.full(visits.num_keys, parameters.expert_bytes(model, precisions.experts), dtype=np.int64)
    memory = parts.load((), lambda: _memory(scenario, model, node, precisions, steps, trace, sizes))
    parts.stop_at_faults()
    assert memory is not None
    per_layer = scenario.policies.scope == "layer"
    parts.load((), lambda: _check_room(memory, sizes, model.num_moe_layers if per_layer else 1))
    times = parts.load(("hardware",), lambda: _times(model, precisions, node, trace, visits, sizes))
    prefetch = chosen["prefetch"]
    candidates = parts.load(
        ("policies", "prefetch"),
        lambda: prefetch.module.candidates(prefetch.params, visits, trace, random_stream(scenario.seed, "prefetch")),
    )
    parts.stop_at_faults()
    assert candidates is not None
    assert times is not None
    assert warm is not None
    host = None
    if memory.host_experts is not None:
        host = TierSetup(chosen["host_caching"], memory.host_experts, False, uses)
    setup = Setup(
        visits=visits,
        times=times,
        sizes=sizes,
        gpu=TierSetup(chosen["caching"], memory.gpu_experts, per_layer, uses),
        host=host,
        unified=node.gpu.unified_memory,
        rule=scenario.policies.rule,
        link=scenario.policies.link,
        candidates=candidates,
        on_miss=chosen["on_miss"],
        warmup_steps=warm,
    )
    return Built(
        file=file,
        setup=setup,
        prefetch=prefetch,
        model=model,
        node=node,
        trace=trace,
        source_trace_sha256=source.sha256,
        precisions=precisions,
        memory=memory,
        terms=evidence.terms(node, arithmetic(node.gpu.compute, precisions.experts.compute)),
        warnings=tuple(_warnings(scenario, model, trace, chosen, setup)),
    )


def random_stream(seed: int, subsystem: str) -> np.random.Generator:
    """The random numbers of one subsystem: a new draw in one does not shift another."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(subsystem.encode())]))


def _choices(scenario: Scenario) -> list[tuple[str, str, PolicyChoice]]:
    policies = scenario.policies
    return [
        ("caching", "caching", policies.caching),
        ("host_caching", "caching", policies.host_caching),
        ("prefetch", "prefetch", policies.prefetch),
        ("on_miss", "on_miss", policies.on_miss),
    ]


def _node(scenario: Scenario) -> Node:
    wanted = scenario.hardware
    return build_node(
        wanted.node,
        gpu=wanted.gpu,
        cpu=wanted.cpu,
        link=wanted.link,
        storage=wanted.storage,
        host_memory=wanted.host_memory,
        overrides=wanted.override,
    )


def _precisions(parts: _Parts, scenario: Scenario, model: ModelSpec | None) -> Precisions | None:
    def stored(key: str, name: str | None, released: str | None) -> Precision | None:
        wanted = name or released
        return parts.load(("precision", key), lambda: get_precision(wanted)) if wanted else None

    experts = stored("experts", scenario.precision.experts, model.expert_precision if model else None)
    dense = stored("dense", scenario.precision.dense, model.dense_precision if model else None)
    if experts is None or dense is None:
        return None
    return Precisions(experts, dense, {"bf16": 2.0, "fp8": 1.0}[scenario.precision.kv])


def _check_policies(scenario: Scenario, policies: Mapping[str, Policy], node: Node, has_training: bool) -> None:
    """What a policy needs that this scenario does not give."""
    faults = []
    for key, policy in policies.items():
        if policy.needs_training and not has_training:
            told = f"{policy.name!r} learns from a training split, and it holds no request"
            faults.append(Fault(f"policies.{key}", told, "a larger workload.train_fraction, as in 0.25"))
    if policies["host_caching"].needs_future:
        told = f"{policies['host_caching'].name!r} needs the future, and what reaches host memory depends on time"
        faults.append(Fault("policies.host_caching", told, "lru"))
    if node.gpu.unified_memory and scenario.policies.on_miss.name != "fetch":
        faults.append(Fault("policies.on_miss", f"{node.gpu.name} shares one memory with its CPU", "fetch"))
    if faults:
        raise ScenarioError(faults)


def _memory(
    scenario: Scenario,
    model: ModelSpec,
    node: Node,
    precisions: Precisions,
    steps: Steps,
    trace: RoutingTrace,
    sizes: Ints,
) -> MemoryPlan:
    wanted, all_experts = scenario.memory, int(sizes.sum())
    longest = int(np.asarray(trace.position)[steps.row].max()) + 1
    together = int(steps.tokens[steps.phase == DECODE].max(initial=1))
    kv = parameters.kv_bytes_per_token_per_layer(model, precisions.kv_bytes_per_element) * model.num_layers
    host = {"auto": None, "all": all_experts}
    return plan_memory(
        gpu_total=node.gpu.memory.value,
        host_total=node.host_memory.value,
        dense=parameters.resident_bytes(model, precisions.dense),
        kv=round(kv * longest * together),
        gpu_reserve=_bytes(wanted.gpu_reserve),
        host_reserve=_bytes(wanted.host_reserve),
        all_experts=all_experts,
        gpu_experts=None if wanted.gpu_experts == "auto" else _bytes(wanted.gpu_experts),
        host_experts=host[wanted.host_experts] if wanted.host_experts in host else _bytes(wanted.host_experts),
        unified=node.gpu.unified_memory,
        has_storage=node.storage is not None,
    )


def _bytes(text: str) -> int:
    return round(parse(text, "bytes"))


def _check_room(memory: MemoryPlan, sizes: Ints, parts: int) -> None:
    largest, faults = int(sizes.max()), []
    for tier, capacity, shares in (("gpu", memory.gpu_experts, parts), ("host", memory.host_experts, 1)):
        if capacity is not None and capacity // shares < largest:
            each = " for each layer" if shares > 1 else ""
            told = f"{capacity // shares} bytes{each} do not hold one expert of {largest} bytes"
            hint = f"at least {largest * shares / 2**20:.1f} MiB"
            faults.append(Fault(f"memory.{tier}_experts", told, hint))
    if faults:
        raise ScenarioError(faults)


def _times(
    model: ModelSpec, precisions: Precisions, node: Node, trace: RoutingTrace, visits: Visits, sizes: Ints
) -> Times:
    """All seconds; a number of the hardware that makes one of them absurd would drown every other."""
    with np.errstate(over="ignore", invalid="ignore"):
        times = node_times(model, precisions, node, trace, visits, sizes)
    parts = [op.total_s for op in (times.before, times.shared, times.expert, times.after)]
    longest = float(np.max(np.concatenate([*parts, times.copy_s, times.read_s, times.cpu_s])))
    shortest = float(times.before.total_s.min())
    hint = "is a number of hardware.override off by its unit?"
    if not longest <= LONGEST_S:
        raise ScenarioError.of("", f"one operation would take {longest:.3g} s", hint)
    if shortest < SHORTEST_S:
        raise ScenarioError.of("", f"attention and router would take {shortest:.3g} s", hint)
    return times


def _warnings(
    scenario: Scenario, model: ModelSpec, trace: RoutingTrace, policies: Mapping[str, Policy], setup: Setup
) -> list[str]:
    told = []
    if "stand-in" in trace.card.labels:
        told.append(
            f"stand-in: the routing was recorded from {trace.card.model}, not from {model.name}; "
            f"{' then '.join(trace.card.transforms)}. Treat rates and seconds as those of a similar workload."
        )
    if "synthetic" in trace.card.labels:
        told.append("synthetic: the routing was generated, not captured.")
    for key, policy in policies.items():
        if policy.needs_future:
            told.append(f"{key} {policy.name!r} knows the future: this is a bound, not a system.")
        if policy.models_future:
            told.append(f"{key} {policy.name!r}: accuracy is modelled from the true routing, not recorded.")
    if scenario.workload.warmup_requests == 0:
        told.append("cold start: caches are empty at the first step, and its misses are counted.")
    if setup.rule == "evict_after":
        told.append("rule evict_after: the GPU's cache overshoots its capacity while a visit runs.")
    return told
