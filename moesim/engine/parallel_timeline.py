"""The first pass of a parallel run as a Chrome trace: a track for each GPU's streams, and for each link that it uses.

Open the JSON in Perfetto. Source of the format: as :mod:`moesim.engine.timeline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.engine.expert_parallel import COMPUTE, EXCHANGE, HOST, NETWORK, Span

Event = dict[str, Any]
Floats = NDArray[np.float64]
#: GPUs and links that are shown; more would not open in a browser.
MAX_GPUS, MAX_LINKS = 16, 64
_THREADS = {COMPUTE: 1, EXCHANGE: 2, NETWORK: 3, HOST: 4}
_LINKS = 100_000


@dataclass(frozen=True)
class ParallelTimeline:
    """What is shown.

    Attributes:
        stages: the spans of each stage's first pass, and when the pass starts.
        layers: the model's number of each stage's MoE layers.
        busy_s: of each stage, by exchange: how long each link moves bytes. [parts, layers, links]
        link_names: [links]
        gpus_per_stage: GPU numbers of a stage begin at a multiple of these.
    """

    stages: Sequence[tuple[Sequence[Span], float]]
    layers: Sequence[Sequence[int]]
    busy_s: Sequence[dict[str, Floats]]
    link_names: Sequence[str]
    gpus_per_stage: int


def chrome_trace_parallel(timeline: ParallelTimeline) -> dict[str, Any]:
    """The whole document."""
    events: list[Event] = []
    for number, (spans, offset) in enumerate(timeline.stages):
        first = number * timeline.gpus_per_stage
        shown = min(timeline.gpus_per_stage, max(MAX_GPUS // len(timeline.stages), 1))
        events += _names(first, shown)
        for span in spans:
            events += _slices(span, timeline.layers[number], first, shown, offset)
        events += _links(timeline, number, spans, offset)
    told = f"the first pass; at most {MAX_GPUS} GPUs and {MAX_LINKS} links a stage"
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"shown": told}}


def _names(first: int, shown: int) -> Iterator[Event]:
    for gpu in range(first, first + shown):
        yield {"ph": "M", "pid": gpu + 1, "tid": 0, "name": "process_name", "args": {"name": f"GPU {gpu}"}}
        for stream, thread in _THREADS.items():
            name = {"name": f"{stream} stream"}
            yield {"ph": "M", "pid": gpu + 1, "tid": thread, "name": "thread_name", "args": name}


def _slices(span: Span, layers: Sequence[int], first: int, shown: int, offset: float) -> Iterator[Event]:
    name = f"{span.name} L{layers[span.layer]}" + (f" part {span.part}" if span.part else "")
    for gpu in range(shown):
        start, end = float(span.start_s[gpu]) + offset, float(span.end_s[gpu]) + offset
        if end > start:
            yield _slice(gpu + first + 1, _THREADS[span.stream], name, start, end, {"layer": layers[span.layer]})


def _links(timeline: ParallelTimeline, stage: int, spans: Sequence[Span], offset: float) -> Iterator[Event]:
    """Each link moves an exchange's bytes from when its first GPU is ready, for as long as they take on it alone."""
    busy = timeline.busy_s[stage]
    total = sum((seconds.sum(axis=(0, 1)) for seconds in busy.values()), start=np.zeros(len(timeline.link_names)))
    links = [link for link in np.argsort(-total, kind="stable")[:MAX_LINKS].tolist() if total[link] > 0]
    process = _LINKS + stage
    yield {"ph": "M", "pid": process, "tid": 0, "name": "process_name", "args": {"name": f"links, stage {stage}"}}
    for thread, link in enumerate(sorted(links)):
        yield {
            "ph": "M",
            "pid": process,
            "tid": thread + 1,
            "name": "thread_name",
            "args": {"name": timeline.link_names[link]},
        }
        free = 0.0
        for span in spans:
            if span.name not in busy:
                continue
            seconds = float(busy[span.name][span.part, span.layer, link])
            start = max(float(span.start_s.min()) + offset, free)
            if seconds > 0:
                free = start + seconds
                yield _slice(process, thread + 1, f"{span.name} L{timeline.layers[stage][span.layer]}", start, free, {})


def _slice(process: int, thread: int, name: str, start_s: float, end_s: float, args: Event) -> Event:
    start, end = round(start_s * 1e6, 3), round(end_s * 1e6, 3)
    return {
        "ph": "X",
        "pid": process,
        "tid": thread,
        "name": name,
        "ts": start,
        "dur": round(end - start, 3),
        "args": args,
    }
