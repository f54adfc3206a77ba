"""Serving with offloaded experts: a runtime on one GPU that decodes one request at a time, or a few.

What a step takes depends on what the caches hold, so it is measured in the offloading engine, on requests of this very
workload: closed loops of 1, 2, 4, ... requests give the time for a token of each of so many (``round_s``), prompts of
1, 4, 16, ... tokens that of a prefill. Between these points tables are linear; longer contexts add what attention
takes by its form. How far single requests are from the tables is told with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.node_times import SOFTWARE
from moesim.costs.parallel import Parallel
from moesim.costs.resident import Part, Resident
from moesim.engine import figures_of
from moesim.errors import ScenarioError
from moesim.hardware import Kind
from moesim.models import parameters
from moesim.results.result import Result
from moesim.scenario.build import Built, build
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parts import Parts, load_parts
from moesim.scenario.schema import Scenario
from moesim.scenario.serving.arrivals import Workload
from moesim.scenario.serving.fidelity import StepError
from moesim.scenario.serving.memory import GpuMemory, kv_bytes_per_token
from moesim.scenario.serving.schema import ServingSpec
from moesim.scenario.serving.tables import Filler, Tables
from moesim.scenario.summary import summarise
from moesim.scenario.workload import pool_of
from moesim.setup.serving import Requests, StepCosts
from moesim.traces import RoutingTrace
from moesim.traces.trace import DECODE, PREFILL
from moesim.transforms import stretch
from moesim.units import format_bytes, parse

Floats = NDArray[np.float64]
#: Each closed loop decodes about so many tokens, of at least so many requests for each place.
TOKENS, ROUNDS = 1500, 3
#: Prompts of each length, and the tokens that each decodes before the next one comes.
REPEATS, BETWEEN = 2, 17
PROMPT_RATIO = 4
#: Requests at once that are measured.
DOUBLINGS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Offloaded:
    """What the offloading engine found of a serving scenario.

    Attributes:
        built: the closed loop with all places taken; ``result``: of it.
        usd_per_s, watts: of the whole machine; None: not known.
    """

    built: Built
    result: Result
    tables: Tables
    memory: GpuMemory
    error: StepError
    usd_per_s: float | None
    watts: float | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers."""
        head, error = self.result.headline, self.error
        rate = f"hit rate per lookup {head.hit_rate_per_lookup:.1%}" if head.hit_rate_per_lookup is not None else ""
        told = (
            f"offload: steps as the offloading engine took them over {error.steps} requests of this workload ({rate}); "
            f"single requests were off these means by {error.mean:.1%}, the farthest by {error.largest:.1%}. "
            "While a prompt is computed, nobody decodes, as if both were parts of one step."
        )
        return (told, *(warning for warning in self.built.warnings if not warning.startswith("cold start")))


def offloaded(file: ScenarioFile) -> Offloaded:
    """Measure the steps of a scenario whose experts are offloaded.

    Raises:
        ScenarioError: with the faults of its parts, or since the KV cache leaves no room.
    """
    parts, serving = load_parts(file), file.scenario.serving
    assert serving is not None
    source, places = parts.source, serving.max_num_seqs
    sample = _sample(file, len(source.request_ids))
    kv_tokens = _kv_tokens(serving, sample)
    file = _with_room(file, parts, kv_tokens)
    counts = [count for count in DOUBLINGS if count < places] + [places]
    loops = [_closed_loop(file, source, sample, count) for count in counts]
    prompts = _prompts(file, source, min(serving.max_num_batched_tokens, int(sample.prompt.max())))
    full, model, stored = loops[-1], parts.model, parts.precisions
    price = Resident(model, stored, parts.node.gpu, software=SOFTWARE, fits=parts.node.fits)
    filler = Filler(price, serving.max_num_batched_tokens, places, kv_tokens)
    decode_s, prefill_s = _decode(filler, loops), _prefill(filler, prompts)
    result, economy, duration_s = full.result, full.result.economy, full.result.headline.duration_s
    return Offloaded(
        built=full.built,
        result=result,
        tables=_tables(filler, decode_s, prefill_s, result, prompts.result),
        memory=_memory(full.built, kv_tokens),
        error=_error(filler, decode_s, loops),
        usd_per_s=None if economy is None or economy.usd is None else economy.usd / duration_s,
        watts=None if economy is None or economy.joules is None else economy.joules / duration_s,
    )


def _sample(file: ScenarioFile, sources: int) -> Requests:
    """The workload's first stretch."""
    scenario = file.scenario
    assert scenario.arrivals is not None
    return next(Workload(scenario.arrivals, file.folder, scenario.seed, sources)())


@dataclass(frozen=True)
class _Steps:
    """Steps of a run, warm-up left out.

    Attributes:
        phase, tokens, seconds: [steps]
        context: mean positions that a step's tokens see. [steps]
        place: number of the request of a step with one. [steps]
    """

    built: Built
    result: Result
    phase: NDArray[np.uint8]
    tokens: NDArray[np.int64]
    seconds: Floats
    context: Floats
    place: NDArray[np.int64]
    together: int


def _run(file: ScenarioFile, source: RoutingTrace, wanted: Requests, warmup: int, together: int) -> _Steps:
    """Requests through the offloading engine, ``together`` of them in flight."""
    serving = file.scenario.serving
    assert serving is not None
    trace = stretch(source, wanted.prompt.tolist(), wanted.output.tolist(), wanted.source.tolist())
    pool = pool_of(load_parts(file).policies["batching"])
    workload = {
        "requests": None,
        "batch": -(-together // pool),
        "max_prompt": None,
        "max_output": None,
        "prefill_chunk": serving.max_num_batched_tokens if serving.chunked_prefill else None,
        "warmup_requests": warmup,
    }
    scenario = file.scenario.model_copy(update={"workload": file.scenario.workload.model_copy(update=workload)})
    built = build(replace(file, scenario=scenario), trace)
    figures = figures_of(built.setup)
    steps, first = built.setup.visits.steps, built.setup.warmup_steps
    sums = np.add.reduceat(np.asarray(built.trace.position)[steps.row] + 1.0, steps.row_start[:-1])
    return _Steps(
        built=built,
        result=summarise(built, figures),
        phase=steps.phase[first:],
        tokens=steps.tokens[first:],
        seconds=(figures.step_end_s - figures.step_start_s)[first:],
        context=(sums / steps.tokens)[first:],
        place=np.asarray(built.trace.request)[steps.row[steps.row_start[:-1]]][first:].astype(np.int64),
        together=together,
    )


def _closed_loop(file: ScenarioFile, source: RoutingTrace, sample: Requests, together: int) -> _Steps:
    """As many requests in flight, of the workload's lengths; the first ones warm the caches up."""
    enough = int(np.searchsorted(np.cumsum(sample.output), TOKENS)) + 1
    count = min(max(enough, ROUNDS * together), len(sample.prompt))
    learned = _learned(file.scenario, count + together)
    places = np.arange(count + together + learned) % len(sample.prompt)
    return _run(file, source, _at(sample, places), together, together)


def _prompts(file: ScenarioFile, source: RoutingTrace, longest: int) -> _Steps:
    """Prompts of growing length, one request at a time, in an order that mixes them."""
    lengths = [1]
    while lengths[-1] < longest:
        lengths.append(min(lengths[-1] * PROMPT_RATIO, longest))
    wanted = [*lengths[::2], *lengths[1::2]] * REPEATS
    wanted = [lengths[-1]] * (1 + _learned(file.scenario, len(wanted) + 1)) + wanted
    sources = np.arange(len(wanted)) % len(source.request_ids)
    numbers = np.array(wanted, dtype=np.int64)
    return _run(file, source, Requests(np.zeros(len(numbers)), numbers, np.full_like(numbers, BETWEEN), sources), 1, 1)


def _learned(scenario: Scenario, count: int) -> int:
    """Requests to put in front of so many, for policies that learn from a share of all."""
    share = scenario.workload.train_fraction
    return -int(-share * count // (1 - share)) if share else 0


def _at(sample: Requests, places: NDArray[np.int64]) -> Requests:
    return Requests(sample.arrival_s[places], sample.prompt[places], sample.output[places], sample.source[places])


def _kv_tokens(serving: ServingSpec, sample: Requests) -> int:
    """Of the KV cache: enough for the longest request in every place.

    Raises:
        ScenarioError: the user gives less than the longest one needs.
    """
    longest = max(int((sample.prompt + sample.output).max()), int(sample.prompt.max()) + BETWEEN)
    if serving.kv_tokens is not None and serving.kv_tokens < longest:
        told = f"{serving.kv_tokens} tokens of KV cache do not hold the longest request, of {longest}"
        raise ScenarioError.of("serving.kv_tokens", told, "leave it out to make room for every place")
    return serving.kv_tokens or -(-longest // serving.block_size) * serving.block_size * serving.max_num_seqs


def _with_room(file: ScenarioFile, parts: Parts, kv_tokens: int) -> ScenarioFile:
    """The scenario with a GPU cache of experts that leaves room for the KV cache; one that the user gives stays."""
    scenario, model, stored = file.scenario, parts.model, parts.precisions
    if scenario.memory.gpu_experts != "auto":
        return file
    kv = kv_bytes_per_token(model, Parallel(), stored.kv_bytes_per_element) * kv_tokens
    reserve = parse(scenario.memory.gpu_reserve, "bytes")
    left = int(parts.node.gpu.memory.value - parameters.resident_bytes(model, stored.dense) - reserve - kv)
    if left <= 0:
        told = f"a KV cache of {kv_tokens} tokens ({format_bytes(round(kv))}) leaves no room for experts on the GPU"
        raise ScenarioError.of("serving.max_num_seqs", told, "fewer places, or shorter requests")
    memory = scenario.memory.model_copy(update={"gpu_experts": f"{left} B"})
    return replace(file, scenario=scenario.model_copy(update={"memory": memory}))


def _memory(built: Built, kv_tokens: int) -> GpuMemory:
    plan, parts = built.memory, built.parts
    each = kv_bytes_per_token(parts.model, Parallel(), parts.precisions.kv_bytes_per_element)
    kv = round(each * kv_tokens)
    return GpuMemory(
        total=plan.gpu_total,
        experts=plan.gpu_experts,
        dense=plan.dense,
        reserve=plan.gpu_total - plan.gpu_experts - plan.dense - kv,
        kv=kv,
        kv_tokens=kv_tokens,
        token_bytes=each,
    )


def _decode(filler: Filler, loops: Sequence[_Steps]) -> Floats:
    """Seconds for a token of each of so many requests: what was measured, and attention's form for other contexts.

    [requests, contexts]
    """
    attention = _sum(filler.decode())
    base = []
    for loop in loops:
        decode = loop.phase == DECODE
        rounds = loop.together * loop.seconds[decode].sum() / loop.tokens[decode].sum()
        context = float(np.average(loop.context[decode], weights=loop.tokens[decode]))
        base.append(rounds - np.interp(context, filler.context, attention[loop.together]))
    counts = np.arange(attention.shape[0])
    found = np.interp(counts, [loop.together for loop in loops], base)[:, None] + attention
    found[0] = 0.0
    return np.asarray(np.maximum(found, 0.0))


def _prefill(filler: Filler, prompts: _Steps) -> Floats:
    """Seconds of a prompt's step: what was measured, and attention's form for those with a past. [queries, spans]"""
    attention = _sum(filler.prefill())
    steps = prompts.phase == PREFILL
    sizes = np.unique(prompts.tokens[steps])
    alone = np.array([np.interp((size + 1) / 2, filler.span, _row(filler.query, attention, size)) for size in sizes])
    measured = np.array([prompts.seconds[steps & (prompts.tokens == size)].mean() for size in sizes])
    base = np.interp(filler.query, sizes, measured - alone)
    beyond = filler.query > sizes[-1]  # several prompts in one step
    base[beyond] *= filler.query[beyond] / sizes[-1]
    return np.asarray(np.maximum(base[:, None] + attention, 0.0))


def _row(points: Floats, table: Floats, at: float) -> Floats:
    """A table's row between two of its points."""
    return np.array([np.interp(at, points, column) for column in table.T])


def _sum(priced: tuple[tuple[int, ...], list[Part]]) -> Floats:
    shape, parts = priced
    return np.array(sum((np.broadcast_to(part.seconds, shape) for part in parts), start=np.zeros(shape)))


def _error(filler: Filler, decode_s: Floats, loops: Sequence[_Steps]) -> StepError:
    """How far single requests of the closed loops are from the tables: seconds of their decode steps."""
    errors: list[float] = []
    for loop in loops:
        decode = (loop.phase == DECODE) & (loop.tokens == loop.together)
        told = np.interp(loop.context, filler.context, decode_s[loop.together])
        for place in np.unique(loop.place[decode]):
            own = decode & (loop.place == place)
            errors.append(abs(float(told[own].sum() / loop.seconds[own].sum()) - 1))
    return StepError(len(errors), float(np.mean(errors)), float(np.max(errors)))


def _tables(filler: Filler, decode_s: Floats, prefill_s: Floats, decoding: Result, prefilling: Result) -> Tables:
    """Tables for the serving engine; what is in them is divided as it was in the offloading engine."""
    none = np.zeros((2, 2))
    costs = StepCosts(
        dense_s=np.zeros(filler.tokens + 1),
        head_s=np.zeros(filler.requests + 1),
        host_s=np.zeros(filler.requests + 1),
        context=filler.context,
        decode_s=decode_s,
        query=filler.query,
        span=filler.span,
        prefill_s=prefill_s,
        load=np.array([0.0, 1.0]),
        expert_s=none,
        token_s=np.zeros(1),
        top_k=np.ones(1, dtype=np.int64),
        share=np.ones(1),
        layers=np.zeros(0),
    )
    measured = {"decode": (decode_s, decoding, decoding.breakdown.decode)}
    measured["prefill"] = (prefill_s, prefilling, prefilling.breakdown.prefill)
    parts = {name: {part.name: part.share * table for part in shares} for name, (table, _, shares) in measured.items()}
    kinds: dict[str, dict[tuple[str, Kind], Floats]] = {}
    for name, (table, result, _) in measured.items():
        kinds[name] = {}
        for row in result.evidence:
            key = (row.term, row.kind)
            kinds[name][key] = kinds[name].get(key, 0.0 * table) + row.share * table
    reasons = dict.fromkeys(reason for row in decoding.evidence for reason in row.extrapolated)
    return Tables(costs, parts, kinds, parts, tuple(reasons))
