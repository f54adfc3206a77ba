"""What must be known beside the numbers of a parallel run."""

from __future__ import annotations

from collections.abc import Iterator

from moesim.scenario.parallel.evidence import extrapolated_exchange
from moesim.scenario.parallel.memory import verdict_of
from moesim.scenario.parallel.run import ParallelRun
from moesim.units import format_seconds


def warnings_of(run: ParallelRun) -> Iterator[str]:
    """Each warning, most important first."""
    yield from _of_memory(run)
    yield from _of_routing(run)
    yield from _of_settings(run)
    yield from _extrapolated(run)
    yield "host time: what a serving engine's host adds to a step is not included."


def _of_memory(run: ParallelRun) -> Iterator[str]:
    if not run.built.memory.fits:
        yield verdict_of(run.built.memory)


def _of_routing(run: ParallelRun) -> Iterator[str]:
    built = run.built
    trace, batch = built.parts.trace, built.parallel.batch
    if "stand-in" in trace.card.labels:
        yield (
            f"stand-in: the routing was recorded from {trace.card.model}, not from {built.parts.model.name} "
            f"({', '.join(trace.card.transforms)}). Rates and seconds are those of a similar workload."
        )
    if "synthetic" in trace.card.labels:
        yield "synthetic: the routing was generated, not captured."
    if batch.routing == "balanced":
        yield "balanced: experts are chosen in turn, as benchmarks do; the trace's routing is not used."
    if batch.drift:
        yield f"drift: {batch.drift:.0%} of each layer's experts trade places after every step (assumed)."
    if built.batch.reuse > 1:
        yield f"trace too short: each of its rows is used {built.batch.reuse:.1f} times in the mean."
    if built.parallel.profile == "oracle" and built.parts.placement.needs_training:
        yield "oracle: placement learned from the scored tokens themselves; this is a bound, not a system."


def _of_settings(run: ParallelRun) -> Iterator[str]:
    parallel = run.built.parallel
    if run.tried:
        each = ", ".join(f"{chunks}: {format_seconds(seconds)}" for chunks, seconds in run.tried.items())
        yield f"best pipelining degree: {parallel.overlap.pipeline} chunks, of those tried ({each})."
    if parallel.batch.scope == "moe":
        yield "MoE layers alone: attention, dense layers and the output head are left out."
    if parallel.rebalance is not None and parallel.rebalance.spread > 1:
        yield f"rebalancing: a step bears 1/{parallel.rebalance.spread} of a move's cost."


def _extrapolated(run: ParallelRun) -> Iterator[str]:
    reasons: dict[str, dict[str, None]] = {}
    for stage in run.built.stages:
        for part in (*stage.priced.parts, stage.experts):
            reasons.setdefault(part.name, {}).update(dict.fromkeys(part.reasons))
    if beyond := extrapolated_exchange(run.built):
        reasons["dispatch and combine"] = dict.fromkeys(beyond)
    outside = [f"{name} ({', '.join(found)})" for name, found in reasons.items() if found]
    if outside:
        yield f"extrapolated: {'; '.join(outside)}."
    if run.built.parts.degrees.tp > run.built.parts.topology.gpus_per_node:
        yield "extrapolated: tensor parallelism over several nodes is priced as within one."
