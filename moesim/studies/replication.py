"""What would help a run on many GPUs, and whether replicas of experts are worth their memory: simulated again each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.engine.flows import flow_seconds
from moesim.errors import MoesimError
from moesim.results.parallel import (
    Change,
    FlowCheck,
    ParallelResult,
    PlacementRow,
    ReplicationStudy,
)
from moesim.scenario.parallel.build import expert_part
from moesim.scenario.parallel.prices import Prices
from moesim.scenario.parallel.run import ParallelRun, ran, run_parallel
from moesim.scenario.parallel.summary import load_of, step_imbalance, summarise_parallel
from moesim.scenario.parallel.variants import changed
from moesim.scenario.schema import PolicyChoice
from moesim.setup.parallel import Moved, ParallelSetup
from moesim.units import format_bytes, format_seconds

Floats = NDArray[np.float64]
Progress = Callable[[str], None]
#: Flow by flow, the busiest exchange of more GPUs than these would take too long.
MAX_FLOW_GPUS = 64
#: The compute capability from which on DeepEP's kernels run.
HOPPER = 9.0
#: Below this, replicas bring no more than a placement without them.
WORTH_IT = 1.02


def with_studies(run: ParallelRun, progress: Progress = lambda _: None) -> ParallelResult:
    """A run's result with what would help, and the replication study."""
    result = summarise_parallel(run)
    now = float(run.step_s.mean())
    changes = []
    for name, meaning, again in _changes(run):
        progress(f"what if: {name}")
        if (found := again()) is not None:
            step_s = float(found.step_s.mean())
            changes.append(Change(change=name, meaning=meaning, step_s=step_s, speedup=now / step_s))
    changes.sort(key=lambda change: change.step_s)
    bottleneck = result.bottleneck.model_copy(update={"what_if": changes})
    progress("is replication worth it?")
    updates: dict[str, Any] = {"bottleneck": bottleneck, "replication": replication(run), "flow_check": flow_check(run)}
    return result.model_copy(update=updates)


def _changes(run: ParallelRun) -> Iterator[tuple[str, str, Callable[[], ParallelRun | None]]]:
    """(name, meaning, the run again) of each change that says something here."""
    setups = [stage.setup for stage in run.built.stages]
    parallel = run.built.parallel

    def again(change: Callable[[ParallelSetup], ParallelSetup]) -> ParallelRun:
        return ran(run.built, tuple(change(setup) for setup in setups))

    yield "an exchange that costs nothing", "no dispatch and combine; a bound", lambda: again(_free)
    yield "every rank equally loaded", "pairs and distinct experts at the mean; a bound", lambda: _balanced(run)
    if setups[0].fetch_s is not None:
        told = "nothing is brought from host memory; needs room for all of a rank's experts"
        yield "every expert on its GPU", told, lambda: again(lambda setup: replace(setup, fetch_s=None, last_s=None))
        yield "twice the host link's speed", "fetches take half as long", lambda: again(_twice_the_link)
    if setups[0].sync == "barrier":
        told = "receivers go on when their own data is there"
        yield "one-sided in place of a barrier", told, lambda: again(lambda setup: replace(setup, sync="one-sided"))
    if parallel.stragglers.gpus or parallel.stragglers.jitter:
        yield "no slow GPUs", "all compute equally fast", lambda: _again(run, {"stragglers": {}})
    overlap, tokens = parallel.overlap, parallel.batch.tokens_per_gpu // parallel.batch.microbatches
    if parallel.exchange.kind != "fused" and not overlap.two_batches and overlap.pipeline == 1 and tokens % 2 == 0:
        yield (
            "two-batch overlap",
            "half the tokens compute while the others travel",
            lambda: _again(run, {"overlap": {"two_batches": True}}),
        )
    kind = "deepep-low-latency" if parallel.batch.phase == "decode" else "deepep-normal"
    if parallel.exchange.kind != kind and float(run.built.parts.gpu.compute_capability or 0) >= HOPPER:
        yield (
            f"{kind} kernels",
            "dispatch and combine as DeepEP does them",
            lambda: _again(
                run, {"exchange": {"kind": kind, "sync": None, "flows": "ports"}, "overlap": {"separate_links": False}}
            ),
        )
    if setups[0].shared_s.any() and not overlap.shared_experts:
        yield (
            "shared experts beside dispatch",
            "computed while tokens travel",
            lambda: _again(run, {"overlap": {"shared_experts": True}}),
        )


def _free(setup: ParallelSetup) -> ParallelSetup:
    none = tuple(Moved(np.zeros_like(m.sent_s), np.zeros_like(m.received_s)) for m in setup.dispatch)
    return replace(setup, dispatch=none, combine=none)


def _twice_the_link(setup: ParallelSetup) -> ParallelSetup:
    return setup if setup.fetch_s is None else replace(setup, fetch_s=setup.fetch_s / 2)


def _balanced(run: ParallelRun) -> ParallelRun:
    """Every rank computes and moves what the mean rank does."""
    built = run.built
    prices = Prices(built.parts, built.parallel, built.batch)
    setups = []
    for stage in built.stages:
        pairs, distinct = _mean(stage.counts.pairs), _mean(stage.counts.distinct)
        part = expert_part(built.parts, built.parallel, prices, pairs, distinct, built.plan)
        experts = np.repeat(part.seconds, built.parts.degrees.expert_tp, axis=-1) * stage.speed[:, None, None, :]
        moved = [
            tuple(Moved(_mean(m.sent_s), _mean(m.received_s)) for m in phases)
            for phases in (stage.setup.dispatch, stage.setup.combine)
        ]
        setups.append(replace(stage.setup, experts_s=experts, dispatch=moved[0], combine=moved[1]))
    return ran(built, tuple(setups))


def _mean(values: Floats) -> Floats:
    """The mean over the last axis in place of each value."""
    return np.broadcast_to(values.mean(axis=-1, keepdims=True), values.shape)


def _again(run: ParallelRun, parallel: dict[str, Any], placement: PolicyChoice | None = None) -> ParallelRun | None:
    """The scenario with some of ``parallel`` changed; None where it can't run so."""
    try:
        return run_parallel(changed(run.built.file, parallel, placement), run.built.parts)
    except MoesimError:
        return None


def replication(run: ParallelRun) -> ReplicationStudy | None:
    """Placements with and without replicas on the same tokens; None where nothing was learned to place by."""
    built = run.built
    if not len(built.batch.learned):
        return None
    experts, ep = built.parts.model.num_experts, built.parts.degrees.ep
    least = -experts % ep
    own = PolicyChoice.model_validate(built.parts.placement.describe())
    wanted = [(PolicyChoice(name="contiguous"), least), (PolicyChoice(name="eplb" if least else "greedy"), least)]
    wanted += [
        (PolicyChoice(name="eplb"), least + number * ep) for number in (1, 2) if least + number * ep <= 3 * experts
    ]
    wanted.append((PolicyChoice(name="lplb"), least + ep))
    if all(own.name != choice.name or built.parallel.redundant_experts != more for choice, more in wanted):
        wanted.append((own, built.parallel.redundant_experts))
    runs: list[tuple[PolicyChoice, int, ParallelRun]] = []
    for choice, more in wanted:
        mine = choice.name == own.name and more == built.parallel.redundant_experts
        found = run if mine else _again(run, {"redundant_experts": more, "rebalance": None}, choice)
        if found is not None:
            runs.append((choice, more, found))
    if not runs or runs[0][0].name != "contiguous":
        return None
    base = runs[0][2]
    rows = [_row(choice, more, found, base) for choice, more, found in runs]
    return ReplicationStudy(rows=rows, answer=_answer(rows, least), before=load_of(base))


def _row(choice: PolicyChoice, more: int, run: ParallelRun, base: ParallelRun) -> PlacementRow:
    step_s = float(run.step_s.mean())
    return PlacementRow(
        policy=choice.name,
        redundant_experts=more,
        step_s=step_s,
        speedup=float(base.step_s.mean()) / step_s,
        imbalance=float(step_imbalance(run).mean()),
        reached_gpus=float(np.mean([stage.counts.reached for stage in run.built.stages])),
        replica_bytes_per_gpu=float(run.built.memory.uses["replicas"].max()),
        fits=run.built.memory.fits,
    )


def _answer(rows: list[PlacementRow], least: int) -> str:
    """Is replication worth it? In a sentence or two, with the numbers."""
    without = min((row for row in rows if row.redundant_experts == least), key=lambda row: row.step_s)
    copied = [row for row in rows if row.redundant_experts > least]
    if not copied:
        return "Replication could not be tried here."
    best = min(copied, key=lambda row: row.step_s)
    gain = without.step_s / best.step_s
    needed = f", with the {least} that fill every rank," if least else ""
    alone = f"placement alone ({without.policy}{needed}) gives {without.speedup:.2f}x over contiguous"
    copies = f"{best.policy} with {best.redundant_experts} redundant experts a layer"
    times = f"{format_seconds(best.step_s)} a step against {format_seconds(without.step_s)}, {gain:.2f}x"
    memory = f"{format_bytes(best.replica_bytes_per_gpu)} a GPU"
    balance = f"imbalance {without.imbalance:.2f} to {best.imbalance:.2f}"
    what = f"{copies} takes {times}, for {memory} ({balance})"
    if not best.fits:
        return f"Replication does not fit: {what}, and GPUs run out of memory; {alone}."
    verdict = "worth it" if gain >= WORTH_IT else "not worth it"
    return f"Replication is {verdict} here: {what}; {alone}."


def flow_check(run: ParallelRun) -> FlowCheck | None:
    """The busiest dispatch's bytes, flow by flow; None for more GPUs than can be followed, or nothing to send."""
    stage, parts = run.built.stages[0], run.built.parts
    worst = stage.counts.worst
    if len(worst) > MAX_FLOW_GPUS or not worst.any():
        return None
    _, received = flow_seconds(parts.topology, worst)
    rate = np.array([link.alltoall_bytes_per_s for link in parts.topology.links])
    pairs = np.zeros((parts.topology.num_gpus,) * 2)
    pairs[: len(worst), : len(worst)] = worst
    ports = float((parts.topology.link_loads(pairs) / rate).max())
    simulated = float(received.max())
    return FlowCheck(ports_s=ports, simulated_s=simulated, ratio=simulated / ports)
