"""How far the tables are from the cost forms that filled them: the same random steps, priced both ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim.costs.resident import Resident
from moesim.costs.step import Step
from moesim.replay.kernels import serving_costs as tables
from moesim.scenario.streams import random_stream
from moesim.setup.serving import Limits, StepCosts

STEPS = 60
#: Lengths of requests that run together vary so much (coefficient of variation, log-normal).
_LENGTH_CV = 0.7


@dataclass(frozen=True)
class StepError:
    """Relative errors of a step's seconds, tables against forms, over random steps."""

    steps: int
    mean: float
    largest: float


def step_error(
    price: Resident, costs: StepCosts, exchange: str | None, limits: Limits, longest: int, seed: int
) -> StepError:
    """Price random steps both ways: mixed lengths, some with a prompt's chunk, experts as many as chance chooses."""
    random, errors = random_stream(seed, "step error"), []
    for _ in range(STEPS):
        decode, chunk, past = _composition(random, limits, longest, price.parallel.dp)
        errors.append(_error(price, costs, exchange, decode, chunk, past, random))
    return StepError(STEPS, float(np.mean(errors)), float(np.max(errors)))


def _composition(
    random: np.random.Generator, limits: Limits, longest: int, copies: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], int, int]:
    """Contexts of decoding requests of one copy, a prompt's new tokens (0: none) and those before them."""
    most = max(min(limits.requests, limits.tokens) // copies, 1)
    count = int(np.exp(random.uniform(0, np.log(most))))
    mean, sigma = min(1000.0, longest / 4), np.sqrt(np.log1p(_LENGTH_CV**2))
    contexts = np.clip(mean * np.exp(random.normal(0, sigma, count)), 2, max(longest / max(count, 1), 2)).astype(
        np.int64
    )
    room = limits.tokens // copies - count
    if room < 2 or random.random() < 0.5:
        return contexts, 0, 0
    return contexts, int(random.integers(2, room + 1)), int(random.integers(0, max(longest // 4, 1)))


def _error(
    price: Resident,
    costs: StepCosts,
    exchange: str | None,
    decode: np.ndarray[tuple[int], np.dtype[np.int64]],
    chunk: int,
    past: int,
    random: np.random.Generator,
) -> float:
    copies, spec = price.parallel.dp, price.spec
    tokens, requests = (len(decode) + chunk) * copies, (len(decode) + (chunk > 0)) * copies
    pairs = distinct = 0
    if spec.num_moe_layers:
        local = spec.num_experts // price.parallel.ep
        pairs = int(
            tokens * spec.top_k / price.parallel.ep * random.uniform(1.0, 1.3 if price.parallel.ep > 1 else 1.0)
        )
        distinct = int(np.clip(local * -np.expm1(-pairs / local) * random.uniform(0.7, 1.0), 1, min(local, pairs)))
    by_table = _table_s(costs, decode * copies, len(decode) * copies, chunk * copies, past, tokens, requests)
    if spec.num_moe_layers:
        by_table += spec.num_moe_layers * tables.expert_s(costs, tokens, pairs, distinct)
    layers = np.ones(spec.num_moe_layers)
    step = Step(
        price.contexts(decode=decode, prefill=[chunk], past=[past]),
        pairs=pairs * layers,
        distinct=distinct * layers,
        moe_tokens=tokens,
        exchange=exchange if price.parallel.ep > 1 else None,
    )
    exact = float(price.forward(step).seconds) + _host_of_all(price, requests, requests // copies)
    return abs(by_table / exact - 1)


def _host_of_all(price: Resident, requests: int, own: int) -> float:
    """One host serves all copies: what that adds to the forward pass of one."""
    return float(price.host(requests).seconds - price.host(own).seconds)


def _table_s(
    costs: StepCosts,
    decode: np.ndarray[tuple[int], np.dtype[np.int64]],
    decoding: int,
    chunk: int,
    past: int,
    tokens: int,
    requests: int,
) -> float:
    seen = chunk * (past + (chunk + 1) / 2)
    seconds = float(costs.dense_s[tokens] + costs.head_s[requests] + costs.host_s[requests])
    seconds += float(tables.decode_s(costs, np.zeros_like(costs.decode_s), decoding, int(decode.sum())))
    return seconds + float(tables.prefill_s(costs, np.zeros_like(costs.prefill_s), chunk, seen))
