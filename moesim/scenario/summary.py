"""From what a run left behind to its :class:`Result`. Every number is derived here; nothing is simulated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moesim.engine import Figures
from moesim.engine.outcome import HIT, LATE, MISS
from moesim.policies.api import CHANGE_OUTPUT, CPU, LOW, SKIP, STREAM, SUBSTITUTE
from moesim.replay.figures import Moves
from moesim.results import metrics
from moesim.results.result import (
    Bound,
    Breakdown,
    Counters,
    Economy,
    Headline,
    LayerRow,
    LinkUse,
    OutputChanged,
    RequestRow,
    Residency,
    Result,
    StepColumns,
)
from moesim.scenario import inputs
from moesim.scenario.bounds import bounds
from moesim.scenario.build import Built
from moesim.scenario.economy import economy
from moesim.scenario.time_use import TimeUse, bottleneck_of, extrapolations, kind_shares
from moesim.traces.trace import DECODE, PREFILL
from moesim.version import __version__

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def summarise(built: Built, outcome: Figures) -> Result:
    """The Result of a run, without the what-ifs (``studies.bottleneck`` adds them)."""
    return _Summary(built, outcome).result()


class _Summary:
    """Masks of what is counted (everything after the warm-up), and one method for each part of the Result."""

    def __init__(self, built: Built, outcome: Figures):
        self.built, self.outcome = built, outcome
        self.setup, self.visits = built.setup, built.setup.visits
        self.steps = self.visits.steps
        layers = self.visits.num_layers
        self.first_step = self.setup.warmup_steps
        self.counted_steps: Bools = np.arange(self.steps.num_steps) >= self.first_step
        self.is_decode: Bools = self.steps.phase == DECODE
        self.counted_visits = np.repeat(self.counted_steps, layers)
        self.decode_visits = np.repeat(self.counted_steps & self.is_decode, layers)
        self.lookup_visit = np.repeat(np.arange(self.visits.num_visits), np.diff(self.visits.lookup_start))
        self.time = TimeUse(self.setup, outcome)
        self.start_s = float(outcome.step_start_s[self.first_step])
        self.duration_s = float(outcome.step_end_s[-1]) - self.start_s

    def result(self) -> Result:
        built = self.built
        scenario = built.file.scenario.model_dump(mode="json")
        digest = hashlib.sha256(json.dumps(scenario, sort_keys=True).encode()).hexdigest()
        breakdown = Breakdown(
            total=self.time.breakdown(self.counted_steps),
            prefill=self.time.breakdown(self.counted_steps & ~self.is_decode),
            decode=self.time.breakdown(self.counted_steps & self.is_decode),
        )
        found = self._economy()
        evidence = self.time.evidence(self.counted_steps, built.waited)
        return Result(
            moesim_version=__version__,
            question=built.file.scenario.question,
            scenario=scenario,
            scenario_sha256=digest,
            seed=built.file.scenario.seed,
            model=inputs.model_facts(built),
            hardware=inputs.hardware_facts(built),
            trace=inputs.trace_facts(built),
            policies=inputs.policy_facts(built),
            headline=self._headline(found),
            bottleneck=bottleneck_of(breakdown.total),
            bounds=self._bounds(),
            output_changed=self._output_changed(),
            breakdown=breakdown,
            links=self._links(),
            counters=self._counters(),
            layers=self._layers(),
            steps=self._step_columns(),
            requests=self._requests,
            residency=self._residency(),
            memory=inputs.memory_rows(built),
            economy=found,
            evidence=evidence,
            evidence_shares=kind_shares(evidence),
            warnings=[*built.warnings, *extrapolations(evidence)],
        )

    # ---- Requests and rates ----------------------------------------------------------------------------------------

    @cached_property
    def _request_ends(self) -> dict[int, tuple[list[float], int, list[float]]]:
        """For each request the ends of its prefill steps, its prompt tokens, and the ends of its decode steps."""
        request_of_row = np.asarray(self.built.trace.request)[self.steps.row].tolist()
        ends: dict[int, tuple[list[float], list[int], list[float]]] = {}
        for step, end_s in enumerate(self.outcome.step_end_s.tolist()):
            rows = request_of_row[self.steps.row_start[step] : self.steps.row_start[step + 1]]
            prefill = self.steps.phase[step] == PREFILL
            for request in dict.fromkeys(rows):
                entry = ends.setdefault(request, ([], [], []))
                entry[0 if prefill else 2].append(end_s)
                if prefill:
                    entry[1].append(rows.count(request))
        return {request: (first, sum(prompt), rest) for request, (first, prompt, rest) in ends.items()}

    @cached_property
    def _requests(self) -> list[RequestRow]:
        """Every request that was admitted after the warm-up."""
        rows: dict[int, RequestRow] = {}
        order = self.steps.request.tolist()
        for place, (request, before) in enumerate(zip(order, self.steps.predecessor.tolist(), strict=True)):
            arrival = rows[before].arrival_s + rows[before].latency_s if before >= 0 else 0.0
            prefill_ends, prompt, decode_ends = self._request_ends[request]
            rows[place] = metrics.request_row(request, arrival, prefill_ends, prompt, decode_ends)
        warm = self.start_s
        return [row for row in rows.values() if row.arrival_s >= warm]

    def _economy(self) -> Economy:
        """Energy and money; what the GPU does by what bounds it, the rest of the time it waits."""
        compute, memory, launch = self.time.gpu_seconds(self.counted_steps)
        links = {link.name: link.busy_s for link in self._links()}
        busy = {
            "GPU": {"arithmetic": compute, "memory": memory, "launches": launch},
            "CPU and DRAM": {"experts": links.get("cpu", 0.0)},
            "drive": {"reading": links.get("flash", 0.0)},
        }
        return economy(self.built.file.scenario.economics, self.built.parts.node, self.duration_s, busy)

    def _headline(self, spent: Economy) -> Headline:
        outcome, counters = self.outcome, self._counters()
        decode_steps = self.counted_steps & self.is_decode
        decode_s = float((outcome.step_end_s - outcome.step_start_s)[decode_steps].sum())
        gaps = [
            metrics.inter_token_s(first[-1] if first else None, rest)
            for row in self._requests
            for first, _, rest in [self._request_ends[row.request]]
        ]
        decode_lookups = self.decode_visits[self.lookup_visit]
        return Headline(
            output_tokens_per_s=counters.output_tokens / self.duration_s,
            decode_tokens_per_s=counters.decode_tokens / decode_s if decode_s else None,
            ttft_s=metrics.distribution([row.ttft_s for row in self._requests if row.ttft_s is not None]),
            tpot_s=metrics.distribution([row.tpot_s for row in self._requests if row.tpot_s is not None]),
            itl_s=metrics.distribution(np.concatenate(gaps) if gaps else []),
            hit_rate_per_lookup=self._rate((HIT, LATE), self.counted_visits[self.lookup_visit]),
            late_rate_per_lookup=self._rate((LATE,), self.counted_visits[self.lookup_visit]),
            decode_hit_rate_per_lookup=self._rate((HIT, LATE), decode_lookups),
            decode_late_rate_per_lookup=self._rate((LATE,), decode_lookups),
            fetched_bytes_per_decode_token=self._bytes(self._to_gpu, self.decode_visits) / counters.decode_tokens
            if counters.decode_tokens
            else None,
            duration_s=self.duration_s,
            joules_per_output_token=_per(spent.joules, counters.output_tokens),
            usd_per_million_output_tokens=_per(spent.usd, counters.output_tokens / 1e6),
        )

    def _rate(self, labels: tuple[int, ...], wanted: Bools) -> float | None:
        chosen = self.outcome.label[wanted]
        return float(np.isin(chosen, labels).sum() / len(chosen)) if len(chosen) else None

    # ---- Counts ----------------------------------------------------------------------------------------------------

    @property
    def _to_gpu(self) -> Moves:
        return self.outcome.moves["flash" if self.setup.unified else "pcie"]

    def _bytes(self, moves: Moves, wanted: Bools) -> int:
        """Of the transfers for some visits. ``wanted``: [visits]"""
        return int(moves.bytes_of(self.setup.bytes_of(moves.key, moves.form))[wanted[moves.visit]].sum())

    def _counters(self) -> Counters:
        outcome, steps = self.outcome, self.steps
        labels = outcome.label[self.counted_visits[self.lookup_visit]]
        actions = outcome.action[self.counted_visits[self.lookup_visit]]
        tokens = steps.tokens
        activation_visit = np.repeat(np.arange(self.visits.num_visits), np.diff(self.visits.activation_start))
        prefetch = {f"prefetch_{name}": count for name, count in asdict(outcome.prefetch).items()}
        return Counters(
            requests=len(self._requests),
            steps=int(self.counted_steps.sum()),
            prefill_tokens=int(tokens[self.counted_steps & ~self.is_decode].sum()),
            decode_tokens=int(tokens[self.counted_steps & self.is_decode].sum()),
            output_tokens=sum(row.output_tokens for row in self._requests),
            activations=int(self.counted_visits[activation_visit].sum()),
            lookups=len(labels),
            hits=int((labels == HIT).sum()),
            late=int((labels == LATE).sum()),
            misses=int((labels == MISS).sum()),
            cpu_lookups=int((actions == CPU).sum()),
            streamed_lookups=int((actions == STREAM).sum()),
            low_precision_lookups=int((actions == LOW).sum()),
            skipped_lookups=int((actions == SKIP).sum()),
            substituted_lookups=int((actions == SUBSTITUTE).sum()),
            fetched_bytes=self._bytes(self._to_gpu, self.counted_visits),
            flash_bytes=self._bytes(outcome.moves["flash"], self.counted_visits),
            evictions=outcome.evictions,
            overshoot_bytes=outcome.overshoot_bytes,
            **prefetch,
        )

    def _output_changed(self) -> OutputChanged:
        wanted = self.counted_visits[self.lookup_visit]
        action = self.outcome.action[wanted]
        if self.setup.narrow is None and not np.isin(action, CHANGE_OUTPUT).any():
            return OutputChanged(share=0.0, low_precision=0.0, skipped=0.0, substituted=0.0)
        weight = self.visits.gates.total[wanted]
        whole = float(weight.sum())
        skipped, substituted = (float(weight[action == kind].sum()) / whole for kind in (SKIP, SUBSTITUTE))
        narrow = np.zeros(len(action), dtype=bool) if self.setup.narrow is None else self.setup.narrow[wanted]
        in_low = (action == LOW) | (narrow & ~np.isin(action, (SKIP, SUBSTITUTE)))
        low = float(weight[in_low].sum()) / whole
        return OutputChanged(
            share=low + skipped + substituted, low_precision=low, skipped=skipped, substituted=substituted
        )

    def _layers(self) -> list[LayerRow]:
        visits, outcome = self.visits, self.outcome
        layer_of_visit = np.arange(visits.num_visits) % visits.num_layers
        visit_s = outcome.visit_end_s - outcome.visit_start_s
        stall_s = outcome.stall_s.sum(axis=1)
        wanted = self.counted_visits[self.lookup_visit]
        layer, label = layer_of_visit[self.lookup_visit][wanted], outcome.label[wanted]
        fetched = np.zeros(visits.num_layers, dtype=np.int64)
        moves = self._to_gpu
        moved = np.where(self.counted_visits[moves.visit], self.setup.bytes_of(moves.key, moves.form), 0)
        np.add.at(fetched, moves.key // visits.num_experts, moved)
        rows = []
        for number in range(visits.num_layers):
            here = (layer_of_visit == number) & self.counted_visits
            decode = here & self.decode_visits
            counts = np.bincount(label[layer == number], minlength=3)
            rows.append(
                LayerRow(
                    layer=self.built.parts.model.moe_layer_indices[number],
                    lookups=int(counts.sum()),
                    hits=int(counts[HIT]),
                    late=int(counts[LATE]),
                    misses=int(counts[MISS]),
                    fetched_bytes=int(fetched[number]),
                    compute_s=float((visit_s - stall_s)[here].sum()),
                    stall_s=float(stall_s[here].sum()),
                    mean_decode_visit_s=float(visit_s[decode].mean()) if decode.any() else None,
                )
            )
        return rows

    def _step_columns(self) -> StepColumns:
        counted, outcome = self.counted_steps, self.outcome
        stall_s = outcome.stall_s.sum(axis=1).reshape(self.steps.num_steps, -1).sum(axis=1)
        return StepColumns(
            phase=["decode" if decode else "prefill" for decode in self.is_decode[counted]],
            tokens=self.steps.tokens[counted].tolist(),
            start_s=(outcome.step_start_s[counted] - self.start_s).tolist(),
            end_s=(outcome.step_end_s[counted] - self.start_s).tolist(),
            stall_s=stall_s[counted].tolist(),
        )

    # ---- Time ------------------------------------------------------------------------------------------------------

    def _links(self) -> list[LinkUse]:
        rows = []
        for name, moves in self.outcome.moves.items():
            counted = self.counted_visits[moves.visit]
            if not counted.any():
                continue
            since_s = np.maximum(moves.start_s, self.start_s)  # some start in the warm-up
            busy = float((moves.end_s - since_s)[counted].sum())
            moved = moves.bytes_of(self.setup.bytes_of(moves.key, moves.form))
            demand = counted & moves.is_demand
            demand_bytes, all_bytes = (int(moved[part].sum()) for part in (demand, counted))
            rows.append(
                LinkUse(
                    name=name,
                    busy_s=busy,
                    busy_share=busy / self.duration_s,
                    demand_transfers=int((demand & moves.is_last).sum()),
                    prefetch_transfers=int((counted & ~demand & moves.is_last).sum()),
                    demand_bytes=demand_bytes,
                    prefetch_bytes=all_bytes - demand_bytes,
                )
            )
        return rows

    def _bounds(self) -> list[Bound]:
        gpu_s = sum(self.time.gpu_seconds(self.counted_steps))
        return bounds(self.setup, self.outcome, gpu_s, self._counters().output_tokens, self.duration_s)

    def _residency(self) -> Residency:
        setup, visits = self.setup, self.visits
        share = self.outcome.resident_share.reshape(visits.num_layers, visits.num_experts)
        return Residency(
            gpu_share=np.round(share, 6).tolist(),
            gpu_slots=setup.gpu.capacity_bytes / float(setup.sizes.max()),
            gpu_capacity_bytes=setup.gpu.capacity_bytes,
            host_capacity_bytes=None if setup.host is None else setup.host.capacity_bytes,
        )


def _per(total: float | None, count: float) -> float | None:
    return total / count if total is not None and count else None
