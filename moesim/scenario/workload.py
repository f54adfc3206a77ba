"""A scenario's routing and requests: the trace as the model's, what is learned from, warmed up with and scored.

Faults name their keys from the top of the scenario.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError, ScenarioError
from moesim.models import ModelSpec
from moesim.policies.api import Policy
from moesim.scenario.schema import NO_TRACE, Scenario, SyntheticSpec
from moesim.traces import RoutingTrace
from moesim.traces.steps import Steps, closed_loop, recorded
from moesim.traces.synthetic import SyntheticRouting, synthesize
from moesim.traces.visits import Visits, visits_of
from moesim.transforms import stand_in


@dataclass(frozen=True)
class Split:
    """Requests of the trace by what they are for, in its order."""

    training: list[int]
    warmup: list[int]
    scored: list[int]


def routing_for(trace: RoutingTrace, model: ModelSpec, scenario: Scenario) -> RoutingTrace:
    """The trace as the model's routing: its own, or a declared stand-in.

    Raises:
        ScenarioError: the model has no experts, or the trace another shape, or is another model's and no stand-in.
    """
    place, card = scenario.trace.file, trace.card
    if not model.num_moe_layers:
        raise ScenarioError.of("model", f"{model.name} is dense: it has no experts to offload", "a model with experts")
    shape, wanted = (card.num_experts, trace.top_k), (model.num_experts, model.top_k)
    if shape != wanted:
        raise ScenarioError.of(
            place,
            f"routes {shape[1]} of {shape[0]} experts, and {model.name} {wanted[1]} of {wanted[0]}",
            "choose a trace and a model of the same shape; only the number of layers may differ (stand_in: true)",
        )
    if scenario.trace.file == NO_TRACE:
        return trace  # made in the model's shape
    if scenario.trace.stand_in:
        return stand_in(trace, model.num_moe_layers)
    names = {_plain(model.name), _plain(model.hf_id or model.name)}
    if _plain(card.model) not in names or trace.num_layers != model.num_moe_layers:
        raise ScenarioError.of(
            place,
            f"was recorded from {card.model} ({trace.num_layers} MoE layers), not from {model.name} "
            f"({model.num_moe_layers})",
            "say trace: {file: …, stand_in: true} to let it stand in; every output then says so",
        )
    return trace


def _plain(name: str) -> str:
    return name.rpartition("/")[2].strip().lower()


def split_requests(trace: RoutingTrace, scenario: Scenario) -> Split:
    """Which requests are learned from, warm the caches, and count.

    Raises:
        ScenarioError: there are fewer than the scenario wants.
    """
    ids = [int(request) for request in trace.request_ids]
    workload = scenario.workload
    learned = round(len(ids) * workload.train_fraction)
    training, rest = ids[:learned], ids[learned:]
    warmup, scored = rest[: workload.warmup_requests], rest[workload.warmup_requests :]
    if not scored:
        given = f"no request of the trace's {len(ids)} is left to score"
        raise ScenarioError.of("workload", given, "a smaller train_fraction or warmup_requests")
    if workload.requests is not None and workload.requests > len(scored):
        given = f"{workload.requests} requests are wanted and the trace has {len(scored)} to score"
        raise ScenarioError.of("workload.requests", given, f"at most {len(scored)}")
    return Split(training, warmup, scored[: workload.requests])


def training_visits(trace: RoutingTrace, split: Split, scenario: Scenario) -> Visits | None:
    """The training split's visits, at the scenario's batch; None where there is none."""
    if not split.training:
        return None
    workload = scenario.workload
    limits = workload.max_prompt, workload.max_output, workload.prefill_chunk
    return visits_of(trace, closed_loop(trace, split.training, workload.batch, *limits))


def steps_of(trace: RoutingTrace, split: Split, scenario: Scenario, batching: Policy) -> Steps:
    """The forward passes of the warm-up and of what is scored.

    Raises:
        TraceError: no token is left, or the trace does not record what ran together.
    """
    workload, requests = scenario.workload, [*split.warmup, *split.scored]
    if workload.batching == "recorded":
        return recorded(trace, requests)
    limits = workload.max_prompt, workload.max_output, workload.prefill_chunk
    in_flight = workload.batch * pool_of(batching)
    group = partial(_grouped, trace, batching, workload.batch) if in_flight > workload.batch else None
    return closed_loop(trace, requests, in_flight, *limits, group)


def pool_of(batching: Policy) -> int:
    """Batches of requests that run at once."""
    pool: int = getattr(batching.params, "pool", 1)
    return pool


def _grouped(trace: RoutingTrace, batching: Policy, batch: int, rows: NDArray[np.int64]) -> list[list[int]]:
    """Who decodes together, by the policy; checked.

    Raises:
        PolicyError: it names nobody, somebody twice, or too many.
    """
    experts = np.asarray(trace.experts)[rows].astype(np.int64)
    token, layer, rank = np.nonzero(experts != trace.sentinel)
    paths = np.zeros((len(rows), trace.num_layers * trace.num_experts), dtype=np.int64)
    paths[token, layer * trace.num_experts + experts[token, layer, rank]] = 1
    groups: list[list[int]] = batching.module.group(batching.params, paths, batch)
    named = [place for group in groups for place in group]
    if not named or len(set(named)) < len(named) or max(map(len, groups)) > batch or not all(groups):
        told = f"groups {len(rows)} requests into {groups}, with at most {batch} in a step"
        raise PolicyError.of(f"policy {batching.name!r} (batching)", told)
    return groups


def warmup_steps(steps: Steps, trace: RoutingTrace, split: Split) -> int:
    """Steps until the last warm-up request is done.

    Raises:
        ScenarioError: no step is left after it.
    """
    of_row = np.isin(np.asarray(trace.request)[steps.row], split.warmup)
    if not of_row.any():
        return 0
    count = int(np.searchsorted(steps.row_start, np.flatnonzero(of_row).max(), side="right"))
    if count == steps.num_steps:
        told = "the warm-up lasts until the last step, so nothing is left to score"
        raise ScenarioError.of("workload.warmup_requests", told, "more requests, or a smaller batch")
    return count


def synthetic_for(model: ModelSpec, wanted: SyntheticSpec, seed: int) -> RoutingTrace:
    """Routing out of chance in the model's shape, its layers repeated."""
    made = synthesize(
        SyntheticRouting(
            num_layers=min(wanted.layers, model.num_moe_layers),
            num_experts=model.num_experts,
            top_k=model.top_k,
            requests=wanted.requests,
            prompt_tokens=wanted.prompt,
            output_tokens=wanted.output,
            skew=wanted.skew,
            stickiness=wanted.stickiness,
            affinity=wanted.affinity,
            drift=wanted.drift,
            seed=seed,
        )
    )
    return stand_in(made, model.num_moe_layers)
