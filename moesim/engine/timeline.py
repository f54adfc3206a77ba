"""A run as a Chrome trace: open the JSON in Perfetto (ui.perfetto.dev) or chrome://tracing.

Tracks: steps and the visits in them, the GPU's compute stream, what the GPU waited for, each link and the CPU, and
the bytes of experts that the GPU holds. Arrows lead from a read to the copy that follows it, and from a copy to the
first use of what it brought. ``L3 E17`` is expert 17 of MoE layer 3.
Source: "Trace Event Format" of the Chromium project; times are microseconds, in steps of ``TICK``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from moesim.engine.outcome import HIT, LATE, MISS, ComputeSpan, Outcome
from moesim.replay.figures import Cause, Span
from moesim.setup import Setup
from moesim.traces.trace import PREFILL

Event = dict[str, Any]
_Use = ComputeSpan | Span

#: An eighth of a microsecond: exact in floats and whole in ns, so that slices that touch do so in every viewer.
#: With finer steps start + duration rounds past the next start here and there, and viewers nest or drop such slices.
TICK = 0.125
LABELS = {HIT: "hit", LATE: "late", MISS: "miss"}
CAUSES = {
    Cause.PCIE: "PCIe transfer",
    Cause.PCIE_QUEUE: "PCIe queue",
    Cause.FLASH: "flash read",
    Cause.FLASH_QUEUE: "flash queue",
    Cause.ROOM: "room in memory",
    Cause.CPU: "CPU expert",
    Cause.CPU_QUEUE: "CPU queue",
}


@dataclass(frozen=True)
class Track:
    """A row of the timeline: a thread of a process, in Chrome's terms."""

    process: int
    thread: int


STEPS, COMPUTE, WAITS = Track(1, 1), Track(1, 2), Track(1, 3)
LINKS = {"pcie": Track(2, 1), "flash": Track(2, 2), "cpu": Track(2, 3)}
MEMORY = Track(3, 1)
_PROCESSES = {1: "GPU", 2: "links and CPU", 3: "memory"}
_THREADS = {
    STEPS: "steps and layers",
    COMPUTE: "compute stream",
    WAITS: "waiting for",
    LINKS["pcie"]: "PCIe: host to GPU",
    LINKS["flash"]: "flash: reads",
    LINKS["cpu"]: "CPU: experts",
}


def chrome_trace(
    setup: Setup, outcome: Outcome, *, max_steps: int | None, layers: Sequence[int] | None = None
) -> dict[str, Any]:
    """A Chrome trace of a run, or of its first steps.

    Args:
        setup: what was run.
        outcome: what it left behind.
        max_steps: so many steps at most; what is cut is said in the trace. None: all.
        layers: the language model's number of each MoE layer; default: counted from 0.
    """
    return _Timeline(setup, outcome, max_steps, layers).trace()


class _Timeline:
    """The window of steps that is shown, and one method for each kind of track."""

    def __init__(self, setup: Setup, outcome: Outcome, max_steps: int | None, layers: Sequence[int] | None):
        visits = setup.visits
        self.setup, self.outcome, self.visits = setup, outcome, visits
        self.layers = range(visits.num_layers) if layers is None else layers
        total = visits.steps.num_steps
        self.num_steps = total if max_steps is None else min(max_steps, total)
        self.num_visits = self.num_steps * visits.num_layers
        self.end_s = float(outcome.step_end_s[self.num_steps - 1]) if self.num_steps else 0.0
        self.compute = [span for span in outcome.compute if span.visit < self.num_visits]
        self.waits = [wait for wait in outcome.waits if wait.visit < self.num_visits]
        self.transfers = {
            name: [span for span in spans if span.start_s < self.end_s] for name, spans in outcome.transfers.items()
        }

    def trace(self) -> dict[str, Any]:
        """The whole document. Slices stand before arrows, which bind to the slice that is open at their time."""
        shown = f"the first {self.num_steps} of {self.visits.steps.num_steps} steps"
        return {
            "traceEvents": [
                *_names(),
                *self._steps(),
                *self._compute(),
                *self._waits(),
                *self._links(),
                *self._memory(),
                *self._arrows(),
                *self._cut(shown),
            ],
            "displayTimeUnit": "ms",
            "otherData": {"shown": shown, "warm-up steps, not counted in the result": self.setup.warmup_steps},
        }

    def _steps(self) -> Iterator[Event]:
        outcome, steps, layers = self.outcome, self.visits.steps, self.visits.num_layers
        for step in range(self.num_steps):
            phase = "prefill" if steps.phase[step] == PREFILL else "decode"
            start_s, end_s = float(outcome.step_start_s[step]), float(outcome.step_end_s[step])
            args = {"step": step, "tokens": int(steps.tokens[step]), "counted": step >= self.setup.warmup_steps}
            yield _slice(STEPS, f"step {step}: {phase}", start_s, end_s, args)
            for visit in range(step * layers, (step + 1) * layers):
                labels = outcome.label[self.visits.lookup_start[visit] : self.visits.lookup_start[visit + 1]]
                counted = dict(zip(LABELS.values(), np.bincount(labels, minlength=len(LABELS)).tolist(), strict=True))
                times = float(outcome.visit_start_s[visit]), float(outcome.visit_end_s[visit])
                yield _slice(STEPS, f"L{self.layers[visit % layers]}", *times, {"visit": visit, **counted})

    def _compute(self) -> Iterator[Event]:
        lookup = self._lookups()
        for span in self.compute:
            if span.end_s == span.start_s:
                continue
            args: Event = {"visit": span.visit, "step": span.visit // self.visits.num_layers}
            name = span.what
            if span.key >= 0:
                name, place = self._expert(span.key), lookup[span.visit, span.key]
                args["lookup"] = LABELS[int(self.outcome.label[place])]
                args["tokens"] = int(self.visits.lookup_tokens[place])
                if span.what != "expert":
                    args["what"] = span.what
            yield _slice(COMPUTE, name, span.start_s, span.end_s, args)

    def _waits(self) -> Iterator[Event]:
        for wait in self.waits:
            name = CAUSES[wait.cause]
            args = {"expert": self._expert(wait.key), "visit": wait.visit}
            yield _slice(WAITS, name, wait.start_s, wait.end_s, args)

    def _links(self) -> Iterator[Event]:
        for name, spans in self.transfers.items():
            key, form = (np.array([getattr(span, field) for span in spans], np.int64) for field in ("key", "form"))
            for span, size in zip(spans, self.setup.bytes_of(key, form).tolist(), strict=True):
                args = {
                    "bytes": span.bytes_of(size),
                    "kind": "demand" if span.is_demand else "prefetch",
                    "visit": span.visit,
                    "step": span.visit // self.visits.num_layers,
                }
                yield _slice(LINKS[name], self._expert(span.key), span.start_s, span.end_s, args)

    def _memory(self) -> Iterator[Event]:
        held = self.outcome.resident_bytes[: self.num_visits].tolist()
        for visit, (before, now) in enumerate(pairwise([-1, *held])):
            if now != before:
                at = _microseconds(float(self.outcome.visit_end_s[visit]))
                yield {**_event("C", MEMORY, "experts on the GPU", at), "args": {"bytes": now}}

    def _arrows(self) -> Iterator[Event]:
        """From reads to copies (and CPU experts), from copies to uses; one number for each arrow."""
        gpu: Sequence[_Use] = [span for span in self.compute if span.key >= 0]
        reads, copies, cpu = (self.transfers.get(name, []) for name in ("flash", "pcie", "cpu"))
        uses = [(COMPUTE, gpu)] if self.setup.unified else [(LINKS["pcie"], copies), (LINKS["cpu"], cpu)]
        reads, copies = ([span for span in spans if span.is_last] for spans in (reads, copies))
        pairs = [(LINKS["flash"], target, *pair) for target, used in uses for pair in _first_uses(reads, used)]
        pairs += [(LINKS["pcie"], COMPUTE, *pair) for pair in _first_uses(copies, gpu)]
        for number, (source, target, came, used) in enumerate(pairs):
            shared = {"cat": "fetch", "id": number}
            name = self._expert(came.key)
            yield {**_event("s", source, name, _microseconds(came.end_s) - TICK), **shared}
            yield {**_event("f", target, name, _microseconds(used.start_s)), **shared, "bp": "e"}

    def _cut(self, shown: str) -> Iterator[Event]:
        if self.num_steps < self.visits.steps.num_steps:
            name = f"cut here: {shown} are shown"
            yield {**_event("i", STEPS, name, _microseconds(self.end_s)), "s": "g"}

    def _expert(self, key: int) -> str:
        layer, expert = divmod(key, self.visits.num_experts)
        return f"L{self.layers[layer]} E{expert}"

    def _lookups(self) -> dict[tuple[int, int], int]:
        """The lookup of each (visit, key)."""
        starts = self.visits.lookup_start[: self.num_visits + 1]
        visit = np.repeat(np.arange(self.num_visits), np.diff(starts)).tolist()
        return {pair: place for place, pair in enumerate(zip(visit, self.visits.lookup_key.tolist(), strict=False))}


def _first_uses(arrivals: Iterable[Span], uses: Iterable[_Use]) -> Iterator[tuple[Span, _Use]]:
    """Each arrival with the first use after it; without a use before the next arrival of the same expert, none."""
    waiting: dict[int, Span] = {}
    pending = iter(sorted(arrivals, key=lambda span: span.end_s))
    upcoming = next(pending, None)
    for use in sorted(uses, key=lambda span: span.start_s):
        while upcoming is not None and upcoming.end_s <= use.start_s:
            waiting[upcoming.key] = upcoming
            upcoming = next(pending, None)
        came = waiting.pop(use.key, None)
        if came is not None:
            yield came, use


def _names() -> Iterator[Event]:
    """Names of processes and threads, and their order."""
    for process, name in _PROCESSES.items():
        for what, args in (("process_name", {"name": name}), ("process_sort_index", {"sort_index": process})):
            yield {"ph": "M", "pid": process, "tid": 0, "name": what, "args": args}
    for track, name in _THREADS.items():
        for what, args in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": track.thread})):
            yield {"ph": "M", "pid": track.process, "tid": track.thread, "name": what, "args": args}


def _event(phase: str, track: Track, name: str, at: float) -> Event:
    return {"ph": phase, "pid": track.process, "tid": track.thread, "name": name, "ts": at}


def _slice(track: Track, name: str, start_s: float, end_s: float, args: Event) -> Event:
    start = _microseconds(start_s)
    return {
        "ph": "X",
        "pid": track.process,
        "tid": track.thread,
        "name": name,
        "ts": start,
        "dur": _microseconds(end_s) - start,
        "args": args,
    }


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6 / TICK) * TICK
