"""The ``replay`` benchmark, predicted: the same routing, cache and prefetch rule through the simulator's own engine.

The benchmark decodes one request, token by token: 12 MoE layers, 32 experts each, 4 of them used. In each layer the
GPU runs the router, the host gets its ids and labels them (resident, on the way, missing), sends for what is missing
and for what is proposed (the previous token's experts of the next layer), and launches experts as they are there. One
copy runs at a time, demands before prefetches, and the next is chosen when the last has ended: exactly what
:mod:`moesim.engine.offload` models. Seconds come from a card's constants alone: ``router_roundtrip`` for the part
before the experts, ``expert_ffn`` for an expert, ``copy`` for its way to the GPU.

``src/routing.txt`` holds the routing: 64 decode tokens of the bundled trace ``moe-32x4``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from moesim.costs.node_times import Times
from moesim.costs.roofline import OpTime
from moesim.engine.offload import simulate
from moesim.engine.outcome import Outcome
from moesim.errors import MicrobenchError
from moesim.microbench.forms import FORMS, Constants, Floats
from moesim.microbench.schema import Row
from moesim.policies import api
from moesim.setup import Setup, TierSetup
from moesim.traces import RoutingTrace
from moesim.traces.card import TraceCard
from moesim.traces.steps import closed_loop
from moesim.traces.trace import DECODE
from moesim.traces.visits import visits_of

ROUTING = Path(__file__).parent / "src" / "routing.txt"
AllConstants = Mapping[tuple[str, str], Constants]


class LoopPrediction(BaseModel):
    """One configuration of the decode loop, measured and predicted. ``*_stall``: share of the time that the GPU waits
    for experts; ``labels_agree``: share of the lookups that both call hit, late or miss alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: int
    prefetch: str
    chunk: int
    measured_s: float
    predicted_s: float
    measured_stall: float
    predicted_stall: float
    labels_agree: float

    @property
    def error_percent(self) -> float:
        """Of the predicted time."""
        return (self.predicted_s / self.measured_s - 1) * 100


class LoopSeconds(BaseModel):
    """What the loop's parts take: before the experts of a layer, an expert, and its copy."""

    model_config = ConfigDict(frozen=True)

    before_s: float
    expert_s: float
    copy_s: float


def routing() -> NDArray[np.int64]:
    """The bundled routing. [tokens, layers, top_k]"""
    head, *lines = ROUTING.read_text().splitlines()
    layers, _, top_k, tokens = (int(word) for word in head.split())
    ids = np.array([[int(word) for word in line.split()] for line in lines], dtype=np.int64)
    return ids.reshape(tokens, layers, top_k)


def num_experts() -> int:
    """Experts of each layer of the bundled routing."""
    return int(ROUTING.read_text().split(maxsplit=2)[1])


def loop_seconds(case: Mapping[str, int | str], constants: AllConstants) -> LoopSeconds | None:
    """Seconds of the loop's parts from a card's constants; None where it lacks some."""
    roundtrip = constants.get(("router_roundtrip", "all"))
    expert = constants.get(("expert_ffn", "own_gemv bf16"))
    copy = constants.get(("copy", "h2d"))
    if roundtrip is None or expert is None or copy is None:
        return None
    weights = 3.0 * int(case["hidden"]) * int(case["inter"])
    chunk = int(case["chunk"]) or round(2 * weights)
    return LoopSeconds(
        before_s=_one("turnaround", roundtrip, tokens=1, copies=0, bytes=0),
        expert_s=_one("gpu_expert", expert, bytes=2 * weights, padded_flops=2 * weights),
        copy_s=_one("copy", copy, bytes=2 * weights, segments=math.ceil(2 * weights / chunk)),
    )


def _one(form: str, constants: Constants, **columns: float) -> float:
    arrays: dict[str, Floats] = {name: np.array([float(value)]) for name, value in columns.items()}
    return float(FORMS[form].seconds(arrays, constants)[0])


def loop_setup(case: Mapping[str, int | str], seconds: LoopSeconds) -> Setup:
    """The loop as the engine runs it: LRU over ``slots`` experts, ``temporal`` prefetch one layer ahead or none."""
    ids = routing()[: int(case["steps"])]
    tokens, layers, top_k = ids.shape
    card = TraceCard(
        name="replay",
        model="moe-32x4",
        num_experts=num_experts(),
        top_k=top_k,
        moe_layer_indices=list(range(layers)),
        origin="captured",
    )
    trace = RoutingTrace(
        card=card,
        experts=ids.astype(np.uint8),
        request=np.zeros(tokens, np.int32),
        position=np.arange(tokens, dtype=np.int32),
        phase=np.full(tokens, DECODE, np.uint8),
        lookahead={},
    )
    visits = visits_of(trace, closed_loop(trace, [0]))
    prefetch = api.load("prefetch", "temporal" if case["prefetch"] else "none", {})
    size = 6 * int(case["hidden"]) * int(case["inter"])
    lookups, keys = len(visits.lookup_key), visits.num_keys
    times = Times(
        before=_op(np.full(visits.num_visits, seconds.before_s)),
        shared=_op(np.zeros(visits.num_visits)),
        expert=_op(np.full(lookups, seconds.expert_s)),
        after=_op(np.zeros(visits.steps.num_steps)),
        copy_s=np.full(keys, seconds.copy_s),
        read_s=np.zeros(keys),
        cpu_s=np.zeros(lookups),
    )
    return Setup(
        visits=visits,
        times=times,
        sizes=np.full(keys, size, dtype=np.int64),
        gpu=TierSetup(api.load("caching", "lru", {}), int(case["slots"]) * size),
        host=None,
        unified=False,
        rule="reserve",
        link="demand-first",
        candidates=prefetch.module.candidates(prefetch.params, visits, trace, np.random.default_rng(0)),
        on_miss=api.load("on_miss", "fetch", {}),
    )


def _op(seconds: Floats) -> OpTime:
    return OpTime(np.zeros_like(seconds), seconds, np.zeros_like(seconds))


def predict_loop(row: Row, constants: AllConstants) -> LoopPrediction | None:
    """What the simulator says of a measured loop; None where the card lacks constants.

    Raises:
        MicrobenchError: the row has no timeline, or one that does not fit the routing.
    """
    seconds = loop_seconds(row.case, constants)
    if seconds is None:
        return None
    outcome = simulate(loop_setup(row.case, seconds))
    total_s = float(outcome.step_end_s[-1])
    stall_us, labels = _timeline(row, outcome)
    return LoopPrediction(
        slots=int(row.case["slots"]),
        prefetch="temporal" if row.case["prefetch"] else "none",
        chunk=int(row.case["chunk"]),
        measured_s=row.seconds,
        predicted_s=total_s,
        measured_stall=stall_us * 1e-6 / row.seconds,
        predicted_stall=float(outcome.stall_s.sum()) / total_s,
        labels_agree=float(np.mean(labels == outcome.label)),
    )


def _timeline(row: Row, outcome: Outcome) -> tuple[float, NDArray[np.int64]]:
    """Microseconds that the measured loop stalled, and its labels. [lookups]"""
    timeline = row.timeline or {}
    try:
        stall = np.asarray(timeline["stall_us"], dtype=np.float64)
        labels = np.asarray(timeline["labels"], dtype=np.int64)
    except (KeyError, TypeError, ValueError):
        raise MicrobenchError.of("replay", "a row has no timeline", "measure again") from None
    if stall.shape != outcome.visit_end_s.shape or labels.shape != outcome.label.shape:
        raise MicrobenchError.of("replay", "a row's timeline does not fit the bundled routing", "measure again")
    return float(stall.sum()), labels
