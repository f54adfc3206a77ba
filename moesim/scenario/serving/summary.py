"""From what a serving run left behind to its :class:`ServingResult`. Every number is derived here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.hardware import Kind
from moesim.models import parameters
from moesim.replay.kernels import serving_state as state
from moesim.replay.serving import Batch, ServingOutcome, serve
from moesim.results import metrics
from moesim.results.result import Bottleneck, Bound, TimeShare, TraceFacts
from moesim.results.serving import (
    MemoryUse,
    PartEvidence,
    ReplicaRow,
    RequestColumns,
    Role,
    ServingCounters,
    ServingHeadline,
    ServingResult,
    StepErrorFacts,
    Timeline,
)
from moesim.results.streamed import Streamed, of_bins
from moesim.scenario.serving.build import BuiltServing
from moesim.scenario.serving.money import rent_usd_per_s, watts
from moesim.scenario.serving.saturation import is_saturated
from moesim.units import parse
from moesim.version import __version__

Floats = NDArray[np.float64]
#: So many of the first requests are listed one by one.
LISTED = 2000
IDLE = "idle"


def run_serving(built: BuiltServing) -> ServingResult:
    """Run a built scenario."""
    watch = Watch(built)
    outcome = serve(built.setup, watch)
    return _Summary(built, outcome, watch).result()


class Watch:
    """Takes the requests that have ended: distributions, those within the SLO, and a list of the first."""

    def __init__(self, built: BuiltServing):
        slo = built.serving.slo
        limits = {"ttft": slo.ttft, "tpot": slo.tpot, "latency": slo.latency}
        self.limits = {name: parse(text, "time") for name, text in limits.items() if text is not None}
        self.ttft, self.tpot, self.latency, self.queue = Streamed(), Streamed(), Streamed(), Streamed()
        self.good = self.prompt_tokens = self.output_tokens = 0
        self._listed: list[Batch] = []
        self._count = 0

    def __call__(self, batch: Batch) -> None:
        """A batch of them."""
        ttft = batch.first_token_s - batch.arrival_s
        latency = batch.last_token_s - batch.arrival_s
        several = batch.output > 1
        tpot = np.zeros(len(ttft))
        tpot[several] = (latency - ttft)[several] / (batch.output[several] - 1)
        self.ttft.add(ttft)
        self.latency.add(latency)
        self.tpot.add(tpot[several])
        self.queue.add(batch.scheduled_s - batch.arrival_s)
        values = {"ttft": ttft, "tpot": tpot, "latency": latency}
        good = np.ones(len(ttft), dtype=bool)
        for name, limit in self.limits.items():
            good &= values[name] <= limit
        self.good += int(good.sum())
        self.prompt_tokens += int(batch.prompt.sum())
        self.output_tokens += int(batch.output.sum())
        if self._count < LISTED:
            self._listed.append(batch)
            self._count += len(ttft)

    def columns(self, start_s: float) -> RequestColumns:
        """The first requests that ended."""

        def column(of: Callable[[Batch], NDArray[Any]]) -> list[Any]:
            found = [of(batch) for batch in self._listed]
            return (np.concatenate(found)[:LISTED] if found else np.zeros(0)).tolist()

        return RequestColumns(
            ident=column(lambda batch: batch.ident),
            prompt_tokens=column(lambda batch: batch.prompt),
            output_tokens=column(lambda batch: batch.output),
            arrival_s=column(lambda batch: batch.arrival_s - start_s),
            ttft_s=column(lambda batch: batch.first_token_s - batch.arrival_s),
            latency_s=column(lambda batch: batch.last_token_s - batch.arrival_s),
            queue_s=column(lambda batch: batch.scheduled_s - batch.arrival_s),
            preempted=column(lambda batch: batch.preempted),
        )


class _Summary:
    """One method for each part of the result."""

    def __init__(self, built: BuiltServing, outcome: ServingOutcome, watch: Watch):
        self.built, self.outcome, self.watch = built, outcome, watch
        self.duration_s = max(outcome.end_s - outcome.start_s, 1e-12)
        self.gpus = built.parallel.gpus * built.replicas

    def result(self) -> ServingResult:
        built, scenario = self.built, self.built.file.scenario.model_dump(mode="json")
        breakdown, evidence = self._breakdown(), self._evidence()
        saturated = is_saturated(self.outcome, self.built.setup.limits)
        return ServingResult(
            moesim_version=__version__,
            question=built.file.scenario.question,
            scenario=scenario,
            scenario_sha256=hashlib.sha256(json.dumps(scenario, sort_keys=True).encode()).hexdigest(),
            seed=built.file.scenario.seed,
            model=self._model(),
            hardware=self._hardware(),
            trace=self._trace(),
            headline=self._headline(saturated),
            bottleneck=_bottleneck(breakdown, saturated),
            what_if=None,
            bounds=self._bounds(),
            breakdown=breakdown,
            resources=self._resources(),
            counters=self._counters(),
            replicas=self._replicas(),
            timeline=self._timeline(),
            requests=self.watch.columns(self.outcome.start_s),
            memory=self._memory(),
            kv_tokens=built.setup.limits.blocks * built.setup.limits.block_tokens,
            step_error=StepErrorFacts(**vars(built.error)),
            evidence=evidence,
            evidence_shares=_by_kind(evidence),
            assumptions=list(built.tables.reasons),
            warnings=[*built.warnings, *self._warnings(saturated)],
        )

    def _headline(self, saturated: bool) -> ServingHeadline:
        watch, outcome, limits = self.watch, self.outcome, self.built.setup.limits
        slo = self.built.serving.slo
        share = watch.good / max(outcome.arrived, 1)
        area = outcome.use.timeline.sum(axis=0) / self.duration_s
        blocks = limits.blocks * self.built.replicas
        busy = outcome.busy_s.sum()
        usd, power = rent_usd_per_s(self.built), watts(self.built)
        asked = bool(watch.limits)
        return ServingHeadline(
            output_tokens_per_s=watch.output_tokens / self.duration_s,
            requests_per_s=outcome.finished / self.duration_s,
            ttft_s=watch.ttft.summary(),
            tpot_s=watch.tpot.summary(),
            itl_s=of_bins(outcome.use.gap, state.GAP_FIRST_S, state.GAP_RATIO, outcome.gap_sum_s),
            latency_s=watch.latency.summary(),
            queue_s=watch.queue.summary(),
            goodput_per_s=watch.good / self.duration_s if asked else None,
            good_share=share if asked else None,
            slo_met=share >= slo.share and not saturated if asked else None,
            saturated=saturated,
            mean_running=float(area[state.RUNNING_S]),
            mean_waiting=float(area[state.WAITING_S]),
            kv_mean_share=float(area[state.BLOCKS_S]) / blocks,
            kv_most_share=outcome.most_blocks / blocks,
            busy_share=float(busy) / (self.duration_s * self.built.replicas),
            gpus=self.gpus,
            usd_per_million_output_tokens=_each(usd, self.duration_s * self.gpus, watch.output_tokens, 1e6),
            joule_per_output_token=_each(power, float(busy) * self.built.parallel.gpus, watch.output_tokens, 1.0),
            duration_s=self.duration_s,
        )

    def _breakdown(self) -> list[TimeShare]:
        """Seconds of all replicas' steps by what takes them, and what is left of their time."""
        seconds = self._seconds(self.built.tables.parts)
        whole = self.duration_s * self.built.replicas
        seconds[IDLE] = max(whole - float(self.outcome.busy_s.sum()), 0.0)
        return sorted(metrics.time_shares(seconds), key=lambda part: -part.seconds)

    def _resources(self) -> list[TimeShare]:
        """The same by what limits them, without what is left."""
        return sorted(metrics.time_shares(self._seconds(self.built.tables.resources)), key=lambda part: -part.seconds)

    def _seconds(self, tables: dict[str, dict[str, Floats]]) -> dict[str, float]:
        """Table entries by name, each as often as it was used."""
        seconds: dict[str, float] = {}
        for table, parts in tables.items():
            for name, values in parts.items():
                seconds[name] = seconds.get(name, 0.0) + float((values * getattr(self.outcome.use, table)).sum())
        scale = self.built.serving.time_scale
        return {name: part * scale for name, part in seconds.items()}

    def _evidence(self) -> list[PartEvidence]:
        """Shares of the time that replicas ran steps, by part and kind, most first."""
        seconds: dict[tuple[str, Kind], float] = {}
        for table, kinds in self.built.tables.kinds.items():
            for key, values in kinds.items():
                seconds[key] = seconds.get(key, 0.0) + float((values * getattr(self.outcome.use, table)).sum())
        whole = sum(seconds.values()) or 1.0
        rows = [PartEvidence(part=part, kind=kind, share=s / whole) for (part, kind), s in seconds.items() if s > 0]
        return sorted(rows, key=lambda row: -row.share)

    def _bounds(self) -> list[Bound]:
        """What no scheduler of this deployment could beat."""
        if not self.watch.output_tokens:
            return []
        built, spec = self.built, self.built.model
        weights = parameters.layer_params(spec) + parameters.head_params(spec)
        read_s = built.precisions.dense.bytes_for(weights) / built.parallel.tp / built.gpu.memory_bandwidth.value
        limits = built.setup.limits
        return [
            Bound(
                name="a full batch, weights read once a step",
                meaning="all places decode, and a step only reads the weights that every token passes",
                status="bound only",
                value=limits.requests * (limits.decoders or limits.replicas) / read_s,
                unit="output tokens/s",
                ours=self.watch.output_tokens / self.duration_s,
            )
        ]

    def _counters(self) -> ServingCounters:
        outcome = self.outcome
        return ServingCounters(
            arrived=outcome.arrived,
            ended=outcome.finished,
            rejected=outcome.rejected,
            steps=int(outcome.steps.sum()),
            prompt_tokens=self.watch.prompt_tokens,
            computed_prompt_tokens=outcome.computed_tokens,
            output_tokens=self.watch.output_tokens,
            preemptions=outcome.preemptions,
        )

    def _replicas(self) -> list[ReplicaRow]:
        limits, outcome = self.built.setup.limits, self.outcome
        rows = []
        for replica, (steps, busy_s) in enumerate(zip(outcome.steps.tolist(), outcome.busy_s.tolist(), strict=True)):
            role: Role = "serves" if not limits.decoders else "prefills" if replica < limits.replicas else "decodes"
            rows.append(ReplicaRow(role=role, steps=steps, busy_s=busy_s))
        return rows

    def _timeline(self) -> Timeline:
        outcome, limits = self.outcome, self.built.setup.limits
        first = int(outcome.start_s / outcome.interval_s)
        last = int(outcome.end_s / outcome.interval_s)
        each = outcome.use.timeline[first : last + 1] / outcome.interval_s
        blocks = limits.blocks * self.built.replicas
        return Timeline(
            interval_s=outcome.interval_s,
            arrivals_per_s=each[:, state.ARRIVED].tolist(),
            ended_per_s=each[:, state.FINISHED].tolist(),
            tokens_per_s=each[:, state.TOKENS].tolist(),
            waiting=each[:, state.WAITING_S].tolist(),
            running=each[:, state.RUNNING_S].tolist(),
            kv_share=(each[:, state.BLOCKS_S] / blocks).tolist(),
        )

    def _memory(self) -> list[MemoryUse]:
        memory = self.built.memory
        uses = {
            "routed experts": memory.experts,
            "other weights": memory.dense,
            "KV cache": memory.kv,
            "reserve": memory.reserve,
        }
        return [MemoryUse(name=name, bytes=size) for name, size in uses.items()]

    def _model(self) -> dict[str, Any]:
        spec, precisions = self.built.model, self.built.precisions
        return {
            "name": spec.name,
            "hf_id": spec.hf_id,
            "layers": spec.num_layers,
            "moe_layers": spec.num_moe_layers,
            "experts": spec.num_experts,
            "top_k": spec.top_k,
            "total_params": parameters.total_params(spec),
            "expert_precision": precisions.experts.name,
            "dense_precision": precisions.dense.name,
        }

    def _hardware(self) -> dict[str, Any]:
        built = self.built
        return {
            "name": built.node.name,
            "gpu": built.gpu.title,
            "network": built.gpu.nvlink,
            "gpus_per_replica": built.parallel.gpus,
            "replicas": built.replicas,
            "gpus": self.gpus,
        }

    def _trace(self) -> TraceFacts | None:
        trace = self.built.trace
        if trace is None:
            return None
        card = trace.card
        return {
            "name": card.name,
            "recorded_from": card.model,
            "origin": card.origin,
            "labels": list(card.labels),
            "transforms": list(card.transforms),
            "sha256": self.built.source_sha256,
            "requests": len(trace.request_ids),
            "tokens": trace.num_tokens,
            "licence": card.licence,
        }

    def _warnings(self, saturated: bool) -> list[str]:
        outcome, told = self.outcome, []
        if saturated:
            told.append(
                "saturated: requests came faster than they were served, and the queue grew until they stopped. "
                "Waits, TTFT and latencies say how long requests came for, not how the system behaves."
            )
        if outcome.rejected:
            told.append(f"rejected: {outcome.rejected} requests are longer than a replica's KV cache or step allows.")
        if outcome.preemptions > 0.05 * max(outcome.finished, 1):
            share = outcome.preemptions / max(outcome.finished, 1)
            told.append(f"preemptions: {share:.0%} of the requests; KV cache is short, and prompts are computed anew.")
        if self.built.error.largest > 0.05 and self.built.offloaded is None:
            told.append(
                f"step times: tables are off the cost forms by {self.built.error.mean:.1%} in the mean and "
                f"{self.built.error.largest:.1%} at most, over {self.built.error.steps} random steps."
            )
        return told


def _bottleneck(breakdown: list[TimeShare], saturated: bool) -> Bottleneck:
    """What takes most of the replicas' time; too few of them where the queue grows."""
    busy = [part for part in breakdown if part.name != IDLE]
    idle = sum(part.share for part in breakdown if part.name == IDLE)
    if idle > 0.5 and not saturated:
        return Bottleneck(bound_by="demand (replicas are idle)", share=idle, what_if=None)
    if not busy:
        return Bottleneck(bound_by="nothing", share=0.0, what_if=None)
    return Bottleneck(bound_by=busy[0].name, share=busy[0].share, what_if=None)


def _by_kind(evidence: list[PartEvidence]) -> dict[Kind, float]:
    found: dict[Kind, float] = {}
    for row in evidence:
        found[row.kind] = found.get(row.kind, 0.0) + row.share
    return found


def _each(rate: float | None, seconds: float, tokens: int, factor: float) -> float | None:
    return None if rate is None or not tokens else rate * seconds / tokens * factor
