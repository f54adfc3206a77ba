"""The frozen input of a serving engine: what steps cost, how requests are routed, what the scheduler may do.

Both engines read these arrays: the SimPy engine (:mod:`moesim.engine.serving`) and the compiled replay
(:mod:`moesim.replay.serving`), and give the same times to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Bits of experts in one word of a mask.
WORD_BITS = 32


@dataclass(frozen=True)
class StepCosts:
    """Seconds of the parts of a replica's step, as tables; a step is their sum.

    Attributes:
        dense_s: all that depends on the number of tokens alone: projections, dense networks, shared experts, router,
            communication between the replica's GPUs. [tokens]
        head_s: output head and sampling, by sequences that get a token. [sequences]
        host_s: what the host adds, by requests in the step. [requests]
        context, decode_s: attention of decoding requests, by their number and mean context. [contexts],
            [requests, contexts]
        query, span, prefill_s: attention of prefilling requests, by their tokens and the mean of the positions that
            each of them sees. [queries], [spans], [queries, spans]
        load, expert_s: routed experts of one layer on one rank, by its (token, expert) pairs and distinct experts.
            [loads], [loads, distinct]
        token_s: what each token of the step that is not on the rank adds to that. [1]
        top_k: experts of a token. [1]
        share: ranks over experts per token: ``pairs * share`` tokens give a rank so many pairs on average. [1]
        layers: how many layers of the model each routed layer stands for. [routed layers]
    """

    dense_s: Any
    head_s: Any
    host_s: Any
    context: Any
    decode_s: Any
    query: Any
    span: Any
    prefill_s: Any
    load: Any
    expert_s: Any
    token_s: Any
    top_k: Any
    share: Any
    layers: Any


@dataclass(frozen=True)
class Routing:
    """Which experts tokens use: rows of a trace, ordered so that a request's tokens follow each other.

    A request that is longer than what its source recorded goes on with the next request of the same domain: rows are
    grouped by phase and domain, and a request goes round its group.

    Attributes:
        mask: the experts of a row, one bit each. [rows, layers, words]
        pairs: how many of a row's experts lie on each rank. [rows, layers, ranks]; empty with one rank.
        ranks: the experts of each rank, one bit each. [ranks, words]
        prompt_start, prompt_low, prompt_high: a source's first prompt row, and its group's rows. [sources]
        output_start, output_low, output_high: the same for output tokens. [sources]
        liked: the experts that a source's output tokens use most, one bit each. [sources, layers, words]
    """

    mask: Any
    pairs: Any
    ranks: Any
    prompt_start: Any
    prompt_low: Any
    prompt_high: Any
    output_start: Any
    output_low: Any
    output_high: Any
    liked: Any


@dataclass(frozen=True)
class Limits:
    """What the scheduler keeps to, as a vLLM instance does.

    Attributes:
        tokens: most tokens of a step.
        requests: most requests that run at once on a replica.
        block_tokens: tokens of a KV block.
        blocks: KV blocks of a replica.
        chunked: whether a prompt may be divided over steps.
        shared_prefix: tokens at the start of every prompt whose KV cache is shared (whole blocks; 0: none).
        replicas: replicas that take new requests.
        decoders: further replicas that only decode what the others have prefilled; 0: no disaggregation.
        least_loaded: route to the replica with the fewest requests, rather than in turn.
        users: closed loop of so many users; 0: open.
        window: of so many requests at the head of the queue the one is admitted next whose liked experts add least to
            those of running requests; one that was passed over so often comes first. 1: in order.
        transfer_latency_s, transfer_token_s: of the KV cache from a prefilling to a decoding replica, per request and
            token.
    """

    tokens: int
    requests: int
    block_tokens: int
    blocks: int
    chunked: bool = True
    shared_prefix: int = 0
    replicas: int = 1
    decoders: int = 0
    least_loaded: bool = False
    users: int = 0
    window: int = 1
    transfer_latency_s: float = 0.0
    transfer_token_s: float = 0.0


@dataclass(frozen=True)
class Requests:
    """A stretch of the workload, in order of arrival.

    Attributes:
        arrival_s: when each comes; of closed-loop users how long each thinks before. [requests]
        prompt, output: tokens. [requests]
        source: which request of the routing it follows. [requests]
    """

    arrival_s: Floats
    prompt: Ints
    output: Ints
    source: Ints


@dataclass(frozen=True)
class ServingSetup:
    """Everything that a serving engine runs; ``requests`` gives the workload anew each time, stretch by stretch."""

    costs: StepCosts
    routing: Routing
    limits: Limits
    requests: Callable[[], Iterator[Requests]]
