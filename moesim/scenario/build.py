"""From a scenario to what an engine runs: parts loaded and fitted together, memory shared out, everything priced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs import evidence
from moesim.costs.node_times import Times, node_times
from moesim.errors import Fault, ScenarioError
from moesim.models import parameters
from moesim.policies.api import CPU, Candidates
from moesim.replay.counts import training_uses
from moesim.scenario.forms import Forms, forms_of, pieces_of
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parts import Gathering, Parts, load_parts
from moesim.scenario.schema import Scenario
from moesim.scenario.splits import layer_bytes, pinned_keys
from moesim.scenario.stored import Stored, stored_experts
from moesim.scenario.streams import random_stream
from moesim.scenario.workload import (
    pool_of,
    routing_for,
    split_requests,
    steps_of,
    training_visits,
    warmup_steps,
)
from moesim.setup import FULL, LOW, MemoryPlan, Pieces, Schedule, Setup, TierSetup, plan_memory
from moesim.setup.schedule import check_schedule, with_host_plan
from moesim.traces import RoutingTrace
from moesim.traces.steps import Steps
from moesim.traces.trace import DECODE
from moesim.traces.visits import Visits, visits_of
from moesim.units import parse

Ints = NDArray[np.int64]
#: A single operation beyond this comes from a slip in a number; sums of them would leave what floats can hold.
LONGEST_S = 1e9
_MAKE_ONE = "`moesim optimum SCENARIO` writes one"


@dataclass(frozen=True)
class Built:
    """A scenario ready to run, with what a Result has to say about its inputs.

    Attributes:
        file: the scenario.
        parts: what it names; ``parts.source`` is the trace as its file has it.
        trace: the trace after its transforms.
        setup: what the engine runs.
        memory: what fits where.
        waited: what waits for links and the CPU are made of, and the constants that they rest on.
        warnings: what a reader must know beside the numbers.
    """

    file: ScenarioFile
    parts: Parts
    trace: RoutingTrace
    setup: Setup
    memory: MemoryPlan
    waited: Sequence[evidence.Waited]
    warnings: tuple[str, ...]


def build(file: ScenarioFile, source: RoutingTrace | None = None) -> Built:
    """Evaluate a scenario.

    Args:
        source: routing in place of the trace that the scenario names.

    Raises:
        ScenarioError: with every fault of the parts at once, then of how they fit together, then of what they give.
    """
    if file.scenario.hardware.cluster is not None or file.scenario.parallel is not None:
        told = "a cluster needs `parallel`, and the other way round; this is a run on one machine"
        raise ScenarioError([file.fault(("hardware", "cluster"), Fault("", told, "parallel: {}"))])
    scenario, parts, gathering = file.scenario, load_parts(file), Gathering(file)
    parts = parts if source is None else replace(parts, source=source)
    trace = gathering.load(("trace",), lambda: routing_for(parts.source, parts.model, scenario))
    gathering.stop()
    split = gathering.load((), lambda: split_requests(trace, scenario))
    has_training = split is None or bool(split.training)
    gathering.load((), lambda: _check_policies(scenario, parts, has_training))
    gathering.stop()
    steps = gathering.load(("workload",), lambda: steps_of(trace, split, scenario, parts.policies["batching"]))
    gathering.stop()

    visits = visits_of(trace, steps)
    training = training_visits(trace, split, scenario)
    uses = None if training is None else training_uses(training)
    stored = gathering.load(
        ("policies", "precision"),
        lambda: stored_experts(parts, visits, uses, file.folder, random_stream(scenario.seed, "precision")),
    )
    gathering.stop()
    visits, sizes = stored.visits, stored.sizes
    warmup = gathering.load((), lambda: warmup_steps(steps, trace, split))
    memory = gathering.load((), lambda: _memory(scenario, parts, steps, trace, sizes))
    gathering.stop()
    gathering.load((), lambda: stored.check_room(memory.gpu_experts))
    times = gathering.load(("hardware",), lambda: _times(parts, trace, stored))
    candidates = gathering.load(("policies", "prefetch"), lambda: _candidates(scenario, parts, trace, visits, training))
    gathering.stop()
    forms = gathering.load((), lambda: forms_of(parts, visits, times, sizes, memory.gpu_experts, uses))
    gathering.stop()
    if (plan := parts.schedule) is not None:
        gathering.load(("policies", "schedule"), lambda: _check_schedule(plan, scenario, visits, memory))
        gathering.stop()
        visits, candidates = replace(visits, keep_until=plan.keep_until), plan.proposals
    gathering.load(("policies", "prefetch"), lambda: _check_low(candidates, forms))
    gpu = gathering.load((), lambda: _gpu_tier(scenario, parts, visits, forms.gpu_bytes, sizes, training, uses, trace))
    gathering.stop()
    pieces = gathering.load((), lambda: pieces_of(scenario.policies.chunk, parts, _prefetched(stored.sizes, forms)))
    gathering.stop()
    setup = _setup(scenario, parts, visits, times, stored, memory, gpu, forms, candidates, uses, warmup, pieces)
    if plan is not None:
        setup = with_host_plan(setup, plan)
    return Built(
        file=file,
        parts=parts,
        trace=trace,
        setup=setup,
        memory=memory,
        waited=evidence.waits(parts.node, parts.ways, sizes),
        warnings=tuple(_warnings(scenario, parts, trace, stored)),
    )


def _setup(
    scenario: Scenario,
    parts: Parts,
    visits: Visits,
    times: Times,
    stored: Stored,
    memory: MemoryPlan,
    gpu: TierSetup,
    forms: Forms,
    candidates: Candidates,
    uses: Ints | None,
    warmup: int,
    pieces: Mapping[int, Pieces],
) -> Setup:
    policies, wanted = parts.policies, scenario.policies
    host = None
    if memory.host_experts is not None:
        host = TierSetup(policies["host_caching"], memory.host_experts, False, uses)
    return Setup(
        visits=visits,
        times=times,
        sizes=stored.sizes,
        gpu=gpu,
        host=host,
        unified=parts.node.gpu.unified_memory,
        rule=wanted.rule,
        link=wanted.link,
        candidates=candidates,
        on_miss=policies["on_miss"],
        warmup_steps=warmup,
        streamed=forms.streamed,
        low=forms.low,
        narrow=stored.narrow if stored.narrow.any() else None,
        pieces=pieces,
        withdraw=wanted.withdraw,
        prefetch=policies["prefetch"] if hasattr(policies["prefetch"].module, "choose") else None,
    )


def _prefetched(sizes: Ints, forms: Forms) -> dict[int, Ints]:
    """Sizes in each form in which experts may be prefetched."""
    return {FULL: sizes} if forms.low is None else {FULL: sizes, LOW: forms.low.sizes}


def _check_low(candidates: Candidates, forms: Forms) -> None:
    if candidates.low is not None and candidates.low.any() and forms.low is None:
        told = "it proposes copies in low precision, and the on-miss policy has none"
        raise ScenarioError.of("", told, "on_miss: hobbit, or low: false")


def _gpu_tier(
    scenario: Scenario,
    parts: Parts,
    visits: Visits,
    capacity: int,
    sizes: Ints,
    training: Visits | None,
    uses: Ints | None,
    trace: RoutingTrace,
) -> TierSetup:
    """The GPU's expert cache, split by layers where the scenario wants it."""
    by_layer, split = scenario.policies.scope == "layer", parts.policies["split"]
    shares = None
    if by_layer and split.name != "equal":
        shares = layer_bytes(split, capacity, int(sizes.max()), parts.model.top_k, training, trace)
    room = shares or ([capacity // visits.num_layers] * visits.num_layers if by_layer else [capacity])
    pinned = pinned_keys(scenario.memory.pinned, visits.num_layers, visits.num_experts, sizes, room)
    return TierSetup(parts.policies["caching"], capacity, by_layer, uses, shares, pinned)


def _candidates(
    scenario: Scenario, parts: Parts, trace: RoutingTrace, visits: Visits, training: Visits | None
) -> Candidates:
    """What is proposed; where there is a training split, after its steps, which alone are then learned from."""
    policy, rng = parts.policies["prefetch"], random_stream(scenario.seed, "prefetch")
    if training is None or policy.needs_future or visits.num_experts != training.num_experts:
        found: Candidates = policy.module.candidates(policy.params, visits, trace, rng)
        return found
    both = visits_of(trace, visits.steps.after(training.steps))
    learned: Candidates = policy.module.candidates(policy.params, both, trace, rng)
    return learned.behind(training.num_visits)


def _check_schedule(schedule: Schedule, scenario: Scenario, visits: Visits, memory: MemoryPlan) -> None:
    place, rule = str(scenario.policies.schedule), scenario.policies.rule
    check_schedule(schedule, visits, memory.gpu_experts, rule, place, memory.host_experts)


def _check_policies(scenario: Scenario, parts: Parts, has_training: bool) -> None:
    """What a policy needs that this scenario does not give."""
    policies, node, faults = parts.policies, parts.node, []
    for key, policy in policies.items():
        if policy.needs_training and not has_training:
            told = f"{policy.name!r} learns from a training split, and it holds no request"
            faults.append(Fault(f"policies.{key}", told, "a larger workload.train_fraction, as in 0.25"))
    for key in ("host_caching", "low_caching"):
        if policies[key].needs_future:
            told = f"{policies[key].name!r} needs the future, and what comes there depends on time and decisions"
            faults.append(Fault(f"policies.{key}", told, "lru"))
    if node.gpu.unified_memory and CPU in policies["on_miss"].actions:
        faults.append(Fault("policies.on_miss", f"{node.gpu.name} shares one memory with its CPU", "fetch"))
    if (split := policies["split"].name) != "equal":
        if scenario.policies.scope != "layer":
            faults.append(
                Fault("policies.split", f"{split!r} splits by layers, and the cache is global", "scope: layer")
            )
        if not has_training and not policies["split"].needs_training:
            told = f"{split!r} needs the shape of a training split, and it holds no request"
            faults.append(Fault("policies.split", told, "a larger workload.train_fraction, as in 0.25"))
    faults += _schedule_faults(scenario)
    if faults:
        raise ScenarioError(faults)


def _schedule_faults(scenario: Scenario) -> list[Fault]:
    """A schedule and the policy that replays it come together, and it decides on prefetches as well."""
    policies = scenario.policies
    needs, given = policies.caching.name == "scheduled", policies.schedule is not None
    faults = []
    if needs and not given:
        faults.append(Fault("policies.schedule", "'scheduled' replays a schedule, and none is named", _MAKE_ONE))
    if given and not needs:
        faults.append(
            Fault("policies.schedule", f"{policies.caching.name!r} replays no schedule", "caching: scheduled")
        )
    if needs and policies.prefetch.name != "none":
        faults.append(Fault("policies.prefetch", "the schedule says what is prefetched", "prefetch: none"))
    if needs and policies.scope == "layer":
        faults.append(Fault("policies.scope", "a schedule is for one cache that all layers share", "scope: global"))
    if policies.host_caching.name == "scheduled":
        faults.append(Fault("policies.host_caching", "a schedule is for the GPU's cache", "lru"))
    return faults


def _memory(scenario: Scenario, parts: Parts, steps: Steps, trace: RoutingTrace, sizes: Ints) -> MemoryPlan:
    """What fits where; each tier must hold an expert at least."""
    model, node, precisions = parts.model, parts.node, parts.precisions
    wanted, all_experts = scenario.memory, int(sizes.sum())
    longest = int(np.asarray(trace.position)[steps.row].max()) + 1
    together = int(steps.tokens[steps.phase == DECODE].max(initial=1)) * pool_of(parts.policies["batching"])
    kv = parameters.kv_bytes_per_token_per_layer(model, precisions.kv_bytes_per_element) * model.num_layers
    host = {"auto": None, "all": all_experts}
    plan = plan_memory(
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
    _check_room(plan, int(sizes.max()), model.num_moe_layers if scenario.policies.scope == "layer" else 1)
    return plan


def _bytes(text: str) -> int:
    return round(parse(text, "bytes"))


def _check_room(memory: MemoryPlan, largest: int, parts: int) -> None:
    faults = []
    for tier, capacity, shares in (("gpu", memory.gpu_experts, parts), ("host", memory.host_experts, 1)):
        if capacity is not None and capacity // shares < largest:
            each = " for each layer" if shares > 1 else ""
            told = f"{capacity // shares} bytes{each} do not hold one expert of {largest} bytes"
            hint = f"at least {largest * shares / 2**20:.1f} MiB"
            faults.append(Fault(f"memory.{tier}_experts", told, hint))
    if faults:
        raise ScenarioError(faults)


def _times(parts: Parts, trace: RoutingTrace, stored: Stored) -> Times:
    """All seconds; a number of the hardware that makes one of them absurd would drown every other."""
    with np.errstate(over="ignore", invalid="ignore"):
        own = node_times(parts.model, parts.precisions, parts.node, trace, stored.visits, stored.sizes, parts.ways)
        times = stored.price(own, parts)
    operations = [op.total_s for op in (times.before, times.shared, times.expert, times.after)]
    longest = float(np.max(np.concatenate([*operations, times.copy_s, times.read_s, times.cpu_s])))
    if not longest <= LONGEST_S:
        hint = "is a number of hardware.override off by its unit?"
        raise ScenarioError.of("", f"one operation would take {longest:.3g} s", hint)
    return times


def _warnings(scenario: Scenario, parts: Parts, trace: RoutingTrace, stored: Stored) -> list[str]:
    told = []
    if "stand-in" in trace.card.labels:
        told.append(
            f"stand-in: the routing was recorded from {trace.card.model}, not from {parts.model.name} "
            f"({', '.join(trace.card.transforms)}). Rates and seconds are those of a similar workload."
        )
    if "synthetic" in trace.card.labels:
        told.append("synthetic: the routing was generated, not captured.")
    for key, policy in parts.policies.items():
        if policy.needs_future:
            told.append(f"{key} {policy.name!r} knows the future: this is a bound, not a system.")
        if policy.models_future:
            told.append(f"{key} {policy.name!r}: accuracy is modelled from the true routing, not recorded.")
    changing = [f"on_miss {parts.policies['on_miss'].name!r}"] * parts.policies["on_miss"].changes_output
    changing += [f"precision {parts.policies['precision'].name!r}"] * bool(stored.narrow.any())
    if changing:
        told.append(
            f"{' and '.join(changing)} change{'s' * (len(changing) == 1)} the model's output; routing and length are "
            "kept as if it did not, and by how much quality falls is not simulated."
        )
    if stored.visits.num_experts != trace.num_experts:
        told.append("lookups, hits and sizes are those of bit-planes: an expert counts once for each that it needs.")
    if parts.node.gpu_count > 1:
        told.append(f"{parts.node.name} has {parts.node.gpu_count} GPUs; this run uses one of them.")
    if scenario.workload.warmup_requests == 0:
        told.append("cold start: caches are empty at the first step, and its misses are counted.")
    if scenario.policies.rule == "evict_after":
        told.append("rule evict_after: the GPU's cache overshoots its capacity while a visit runs.")
    return told
