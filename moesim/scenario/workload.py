"""A scenario's routing and requests: the trace as the model's, what is learned from, warmed up with and scored.

Faults name their keys from the top of the scenario.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim.errors import ScenarioError
from moesim.models import ModelSpec
from moesim.scenario.schema import Scenario
from moesim.traces import RoutingTrace
from moesim.traces.steps import Steps, closed_loop, recorded
from moesim.traces.visits import Visits, visits_of
from moesim.transforms import select_requests, stand_in


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
    part, workload = select_requests(trace, split.training), scenario.workload
    limits = workload.max_prompt, workload.max_output, workload.prefill_chunk
    return visits_of(part, closed_loop(part, split.training, workload.batch, *limits))


def steps_of(trace: RoutingTrace, split: Split, scenario: Scenario) -> Steps:
    """The forward passes of the warm-up and of what is scored.

    Raises:
        TraceError: no token is left, or the trace does not record what ran together.
    """
    workload, requests = scenario.workload, [*split.warmup, *split.scored]
    if workload.batching == "recorded":
        return recorded(trace, requests)
    return closed_loop(
        trace, requests, workload.batch, workload.max_prompt, workload.max_output, workload.prefill_chunk
    )


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
