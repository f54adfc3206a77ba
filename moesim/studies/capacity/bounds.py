"""What no scheduler could beat on a deployment, from the tables of its steps: bounds that may cut candidates.

A step that holds T tokens takes at least ``floor(T)``: the least that the tables say for T tokens or more (tables need
not rise), with one request on the host, no attention, and as few experts as T tokens may choose. So

- a token costs at least ``c = min floor(T) / T`` seconds of a replica, and a step ``floor(1)``;
- a prompt of P tokens takes at least ``max(c P, floor(1))``, each further token ``floor(1)``;
- requests that are within their limits are through by the end of the limits of the last one that comes: in that time
  r replicas must find ``sum c (P + O - 1)`` seconds, and places for ``sum O floor(1) / B``. Which requests these are is
  open: at least as many as the SLO asks for, and at best those with the least work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.scenario.serving.build import BuiltServing
from moesim.setup.serving import Requests, Routing, StepCosts
from moesim.units import parse

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class ServingBounds:
    """Of one load on one configuration.

    Attributes:
        good_share: at most so many of the requests can be within the limits, however many replicas there are.
        replicas: at least so many are needed to keep up.
        ttft_s, tpot_s: no request is faster (the median request's prompt).
    """

    good_share: float
    replicas: int
    ttft_s: float
    tpot_s: float


def serving_bounds(built: BuiltServing) -> ServingBounds:
    """The bounds of a built scenario."""
    requests = _all(built)
    token_s, step_s = least_s(built.setup.costs, built.setup.routing)
    prompt = np.maximum(requests.prompt - built.setup.limits.shared_prefix, 1)
    ttft = np.maximum(token_s * prompt, step_s)
    latency = ttft + (requests.output - 1) * step_s
    return ServingBounds(
        good_share=float(_within(built, ttft, step_s, latency, requests.output).mean()),
        replicas=_least_replicas(built, requests, token_s * (prompt + requests.output - 1), requests.output * step_s),
        ttft_s=float(np.median(ttft)),
        tpot_s=step_s,
    )


def least_s(costs: StepCosts, routing: Routing) -> tuple[float, float]:
    """Seconds that a token takes at least, and a step."""
    tokens = np.arange(1, len(costs.dense_s))
    floor = _suffix_minimum(costs.dense_s)[1:] + float(costs.host_s[1:].min()) + float(costs.head_s.min())
    floor = floor + _experts_s(costs, routing, tokens)
    return float((floor / tokens).min()), float(floor[0])


def _experts_s(costs: StepCosts, routing: Routing, tokens: NDArray[np.int64]) -> Floats:
    """At least, over all layers: the rank with the most pairs has as many as the mean, or more."""
    if not len(costs.layers):
        return np.zeros(len(tokens))
    ranks, token_s = len(routing.ranks), float(costs.token_s[0])
    each = int(costs.top_k[0]) if ranks == 1 else int(routing.pairs.sum(axis=2).min())
    # a table's entry counts the tokens that go with its pairs; here the step's own tokens count
    own = costs.expert_s[:, 1:].min(axis=1) - token_s * float(costs.share[0]) * costs.load
    least = _suffix_minimum(own)
    place = np.maximum(np.searchsorted(costs.load, tokens * each / ranks, side="right") - 1, 0)
    return np.asarray(float(costs.layers.sum()) * np.maximum(least[place] + token_s * tokens, 0.0))


def _suffix_minimum(values: Floats) -> Floats:
    """The least of a value and all behind it."""
    return np.asarray(np.minimum.accumulate(values[::-1])[::-1])


def _within(built: BuiltServing, ttft: Floats, tpot_s: float, latency: Floats, output: NDArray[np.int64]) -> Floats:
    """Which requests could be within the limits."""
    slo, good = built.serving.slo, np.ones(len(ttft), dtype=bool)
    if slo.ttft is not None:
        good &= ttft <= parse(slo.ttft, "time")
    if slo.tpot is not None:
        good &= (output == 1) | (tpot_s <= parse(slo.tpot, "time"))
    if slo.latency is not None:
        good &= latency <= parse(slo.latency, "time")
    return good


def _least_replicas(built: BuiltServing, requests: Requests, work_s: Floats, places_s: Floats) -> int:
    """Of an open load without disaggregation; 1 where nothing is known."""
    limits, slo, arrivals = built.setup.limits, built.serving.slo, requests.arrival_s
    if limits.users or limits.decoders:
        return 1
    ends = []
    if slo.latency is not None:
        ends.append(parse(slo.latency, "time"))
    if slo.ttft is not None and slo.tpot is not None:
        ends.append(parse(slo.ttft, "time") + parse(slo.tpot, "time") * float(requests.output.max() - 1))
    if not ends:
        return 1
    window = float(arrivals[-1] - arrivals[0]) + min(ends)
    good = int(np.ceil(slo.share * len(arrivals) - 1e-9))
    needed = max(float(np.sort(seconds)[:good].sum()) for seconds in (work_s, places_s / limits.requests))
    return max(int(np.ceil(needed / window * (1 - 1e-9))), 1)


def _all(built: BuiltServing) -> Requests:
    stretches = list(built.setup.requests())
    names = ("arrival_s", "prompt", "output", "source")
    return Requests(*(np.concatenate([getattr(stretch, name) for stretch in stretches]) for name in names))
