"""What the time of a parallel run rests on: every part of it with its constants, and how well they are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from moesim.costs.all_to_all import Exchange
from moesim.costs.part import Basis, Constant, Part, card_constant
from moesim.engine.expert_parallel import FETCHED, SLOWER
from moesim.hardware import Kind
from moesim.hardware.topology import sourced_numbers
from moesim.results.result import ConstantRow, EvidenceRow
from moesim.scenario.parallel.build import BuiltParallel
from moesim.scenario.parallel.run import BUBBLE, MOVES, ParallelRun


@dataclass(frozen=True)
class Share:
    """Seconds of the steps (mean over GPUs), by how well they are known, and what they rest on."""

    name: str
    by_kind: dict[Kind, float]
    basis: Basis

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(self.by_kind.values())


def computed(run: ParallelRun) -> dict[str, float]:
    """Seconds that GPUs compute, by what: mean over GPUs, all steps."""
    found: dict[str, float] = {}
    for share in _computed(run):
        found[share.name] = found.get(share.name, 0.0) + share.seconds
    return found


def _computed(run: ParallelRun) -> Iterator[Share]:
    stages = len(run.built.stages)
    for stage in run.built.stages:
        speed = float(stage.speed.mean())
        whole = len(stage.speed)
        for part in stage.priced.parts:
            yield _share(part.name, part, speed / stages, whole)
        yield _share("routed experts", stage.experts.total(), speed / stages, whole)


def _share(name: str, part: Part, scale: float, passes: int) -> Share:
    """Of a part [passes, parts, replicas]: the sum over passes and parts, the mean over replicas."""
    kinds: dict[Kind, float] = {}
    for kind, seconds in part.by_kind().items():
        full = np.asarray(seconds)
        each = full if full.ndim >= 3 else np.broadcast_to(full, (passes, 1, 1))
        kinds[kind] = kinds.get(kind, 0.0) + float(each.mean(axis=-1).sum()) * scale
    return Share(name, kinds, part.basis)


def shares_of(run: ParallelRun) -> list[Share]:
    """Computing and waiting, each with its basis; scaled so that they add up to the time of the steps."""
    found = list(_computed(run))
    scale = run.busy_s / (sum(share.seconds for share in found) or 1.0)
    found = [Share(s.name, {kind: v * scale for kind, v in s.by_kind.items()}, s.basis) for s in found]
    built = run.built
    parts = built.parts
    exchange = Exchange(built.parallel.exchange.kind, parts.topology, parts.degrees.stage, parts.fits)
    experts = built.stages[0].experts.basis
    for cause, seconds in run.waits_s.items():
        if cause in ("dispatch", "combine"):
            basis = exchange.basis(cause, exchanged_sizes(built))
        elif cause in (SLOWER, BUBBLE):
            basis = experts
        elif cause == MOVES:
            basis = Basis("move", "", "card", tuple(_links(run)))
        elif cause == FETCHED and (found_first := built.stages[0].fetched) is not None:
            basis = found_first.basis
        else:
            basis = exchange.basis("dispatch", exchanged_sizes(built))
        found.append(Share(f"waiting: {cause}", {basis.kind: seconds}, basis))
    return found


def exchanged_sizes(built: BuiltParallel) -> dict[str, float]:
    """What dispatch and combine are asked for, as their forms call it."""
    model, parallel = built.parts.model, built.parallel
    return {
        "tokens": parallel.batch.tokens_per_gpu // (parallel.batch.microbatches * parallel.overlap.parts),
        "hidden": float(model.hidden_size),
        "topk": float(model.top_k),
        "experts": float(model.num_experts + parallel.redundant_experts),
    }


def extrapolated_exchange(built: BuiltParallel) -> list[str]:
    """In words, which sizes of dispatch and combine lie outside of what their constants were fitted to."""
    parts = built.parts
    exchange = Exchange(built.parallel.exchange.kind, parts.topology, parts.degrees.stage, parts.fits)
    if parts.degrees.ep == 1:
        return []
    return list(dict.fromkeys(exchange.outside("dispatch", exchanged_sizes(built))))


def evidence_rows(run: ParallelRun) -> list[EvidenceRow]:
    """Parts of the time by what they rest on, longest first."""
    whole = float(run.step_s.sum())
    merged: dict[tuple[str, str, Kind], tuple[float, Basis]] = {}
    for share in shares_of(run):
        for kind, seconds in share.by_kind.items():
            key = (share.name, share.basis.operation + share.basis.stack, kind)
            merged[key] = (merged.get(key, (0.0, share.basis))[0] + seconds, share.basis)
    rows = [
        EvidenceRow(term=name, seconds=seconds, share=seconds / whole, kind=kind, constants=list(_constants(basis)))
        for (name, _, kind), (seconds, basis) in merged.items()
        if seconds > 0
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def _links(run: ParallelRun) -> Iterator[Constant]:
    """The rates of the cluster's networks."""
    for name, number in sourced_numbers(run.built.parts.topology).items():
        if name.endswith("bandwidth"):
            yield card_constant(f"network.{name}", number, "B/s")


def _constants(basis: Basis) -> Iterator[ConstantRow]:
    for constant in basis.constants:
        yield ConstantRow.model_validate(asdict(constant))
