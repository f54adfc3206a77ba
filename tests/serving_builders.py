"""Serving setups that tests share: random tables, a small routing."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from moesim.setup.serving import WORD_BITS, Limits, Requests, Routing, ServingSetup, StepCosts


def flat_costs(step_s: float, tokens: int = 64, requests: int = 8) -> StepCosts:
    """Every step takes the same time, whatever is in it; no experts."""
    zeros, axis = np.zeros((2, 2)), np.array([0.0, 1.0])
    return StepCosts(
        dense_s=np.full(tokens + 1, step_s),
        head_s=np.zeros(requests + 1),
        host_s=np.zeros(requests + 1),
        context=axis,
        decode_s=np.zeros((requests + 1, 2)),
        query=axis,
        span=axis,
        prefill_s=zeros,
        load=axis,
        expert_s=zeros,
        token_s=np.zeros(1),
        top_k=np.ones(1, dtype=np.int64),
        share=np.ones(1),
        layers=np.zeros(0),
    )


def random_costs(rng: np.random.Generator, tokens: int, requests: int, experts: int, top_k: int, layers: int) -> Any:
    """Tables that rise along their axes, so that nothing is negative beyond them."""
    context, query, span, load = (np.concatenate([[0], np.cumsum(rng.integers(1, 40, 6))]) for _ in range(4))

    def times(*shape: int) -> Any:
        return rng.uniform(1e-4, 1e-2, shape)

    return StepCosts(
        dense_s=times(tokens + 1),
        head_s=times(requests + 1),
        host_s=times(requests + 1),
        context=context.astype(float),
        decode_s=np.sort(times(requests + 1, len(context))),
        query=query.astype(float),
        span=span.astype(float),
        prefill_s=np.sort(np.sort(times(len(query), len(span)), axis=0)),
        load=load.astype(float),
        expert_s=np.sort(times(len(load), experts + 1) + 1.0, axis=0),
        token_s=rng.uniform(0, 1e-6, 1),
        top_k=np.array([top_k]),
        share=np.array([rng.uniform(0.1, 1)]),
        layers=rng.integers(1, 3, layers).astype(float),
    )


def no_routing() -> Routing:
    """For setups without experts."""
    none, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
    return Routing(
        np.zeros((1, 0, 1), np.int64),
        np.zeros((1, 0, 1), np.int64),
        np.ones((1, 1), np.int64),
        none,
        none,
        one,
        none,
        none,
        one,
        np.zeros((1, 0, 1), np.int64),
    )


def random_routing(
    rng: np.random.Generator, experts: int, top_k: int, layers: int, ranks: int, sources: int = 5
) -> Routing:
    """Prompts of 7 rows in one group, outputs of 9 rows in another."""
    prompt, output = 7, 9
    rows = sources * (prompt + output)
    chosen = np.argsort(rng.random((rows, layers, experts)), axis=2)[:, :, :top_k]
    words = -(-experts // WORD_BITS)
    mask = np.zeros((rows, layers, words), dtype=np.int64)
    for word in range(words):
        bits = np.where(chosen // WORD_BITS == word, 1 << (chosen % WORD_BITS), 0)
        mask[:, :, word] = np.bitwise_or.reduce(bits, axis=2)
    owner = chosen // (experts // ranks)
    on_rank = np.zeros((ranks, words), dtype=np.int64)
    for expert in range(experts):
        on_rank[expert // (experts // ranks), expert // WORD_BITS] |= 1 << (expert % WORD_BITS)
    source, zero = np.arange(sources), np.zeros(sources, dtype=np.int64)
    middle = sources * prompt
    return Routing(
        mask=mask,
        pairs=(owner[..., None] == np.arange(ranks)).sum(axis=2).astype(np.int64),
        ranks=on_rank,
        prompt_start=source * prompt,
        prompt_low=zero,
        prompt_high=zero + middle,
        output_start=middle + source * output,
        output_low=zero + middle,
        output_high=zero + rows,
        liked=np.bitwise_or(mask[: sources * 2 : 2], mask[1 : sources * 2 : 2]),
    )


def random_setup(seed: int) -> ServingSetup:
    """Anything that the engines can run."""
    rng = np.random.default_rng(seed)
    ranks = int(rng.choice([1, 1, 2, 4]))
    experts, top_k, layers = int(ranks * rng.integers(2, 20)), int(rng.integers(1, 3)), int(rng.integers(0, 4))
    chunked = bool(rng.random() < 0.7)
    tokens = int(rng.integers(8, 40)) if chunked else 120
    size = int(rng.integers(1, 8))
    users = int(rng.choice([0, 0, 3]))
    count = int(rng.integers(1, 40))
    limits = Limits(
        tokens=tokens,
        requests=int(rng.integers(1, 7)),
        block_tokens=size,
        blocks=int(rng.integers(60 // size, 200 // size + 2)),
        chunked=chunked,
        shared_prefix=int(rng.choice([0, 0, 10])),
        replicas=int(rng.integers(1, 4)),
        decoders=int(rng.choice([0, 0, 2])),
        least_loaded=bool(rng.random() < 0.5),
        users=users,
        window=int(rng.choice([1, 1, 2, 5])),
        transfer_latency_s=float(rng.uniform(0, 1)),
        transfer_token_s=float(rng.uniform(0, 0.1)),
    )
    gaps = rng.exponential(rng.choice([0.01, 1.0, 10.0]), count)
    requests = Requests(
        arrival_s=gaps if users else np.cumsum(gaps),
        prompt=rng.integers(1, 60, count),
        output=rng.integers(1, 30, count),
        source=rng.integers(0, 5, count),
    )
    cuts = [] if users else sorted(rng.integers(0, count + 1, int(rng.integers(0, 3))).tolist())
    edges = [0, *cuts, count]
    stretches = [
        Requests(*(getattr(requests, name)[low:high] for name in ("arrival_s", "prompt", "output", "source")))
        for low, high in itertools.pairwise(edges)
    ]
    return ServingSetup(
        costs=random_costs(rng, tokens, limits.requests, experts, top_k, layers),
        routing=random_routing(rng, experts, top_k, layers, ranks),
        limits=limits,
        requests=lambda: iter(stretches),
    )
