"""Visits part after part, in bounded memory: of a trace that memory can't hold, or of one that it can.

The workload is that of batch 1: requests one after the other, each a prefill step and then a step for each token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError
from moesim.policies.api import Policy
from moesim.replay.compile import run
from moesim.replay.counts import Counts, Phase, Rule, check_capacity
from moesim.replay.expert_cache import contexts
from moesim.replay.kernels.blocks import ACTIVATIONS, FETCHED_BYTES, HITS, LOOKUPS
from moesim.replay.kernels.uses import Uses
from moesim.replay.packed import check_fault, pack
from moesim.traces import RoutingTrace
from moesim.traces.trace import DECODE, PREFILL, forget
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
#: Activations of a part, where a prompt isn't longer: a few megabytes of arrays.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Part:
    """Some steps' routing.

    Attributes:
        experts: of each token, the steps' one after the other; ``num_experts`` and above is none.
            [tokens, layers, top_k]
        row_start: the tokens of each step. [steps + 1]
        phase: PREFILL or DECODE. [steps]
        starts_request: [steps]
    """

    experts: NDArray[Any]
    row_start: Ints
    phase: NDArray[np.uint8]
    starts_request: NDArray[np.bool_]


@dataclass(frozen=True)
class VisitsPart:
    """Some steps' visits; arrays as in :class:`moesim.traces.visits.Visits`."""

    layers: int
    phase: NDArray[np.uint8]
    starts_request: NDArray[np.bool_]
    start: Ints
    key: Ints
    lookup_start: Ints
    lookup_key: Ints

    @staticmethod
    def whole(visits: Visits) -> VisitsPart:
        """All visits of a workload in one part."""
        return VisitsPart(
            visits.num_layers,
            visits.steps.phase,
            visits.starts_request,
            visits.activation_start,
            visits.activation_key,
            visits.lookup_start,
            visits.lookup_key,
        )


def decode_parts(blocks: Iterable[NDArray[Any]]) -> Iterator[Part]:
    """Routing without prompts: a step for each token. Each [tokens, layers, top_k]"""
    for block in blocks:
        tokens = len(block)
        steps = np.arange(tokens + 1, dtype=np.int64)
        yield Part(block, steps, np.full(tokens, DECODE, dtype=np.uint8), np.zeros(tokens, dtype=np.bool_))


def parts_of(trace: RoutingTrace, requests: Sequence[int]) -> Iterator[Part]:
    """Requests of a trace, one after the other; of a memory-mapped trace only what is read is held in memory."""
    most = max(1, BLOCK // (trace.num_layers * trace.top_k))
    pending: list[_Piece] = []
    for request in requests:
        for piece in _pieces(trace, request, most):
            pending.append(piece)
            if sum(len(each.row) for each in pending) >= most:
                yield _joined(trace, pending)
                pending = []
    if pending:
        yield _joined(trace, pending)


def visits_parts(parts: Iterable[Part], num_experts: int, *, lookups: bool) -> Iterator[VisitsPart]:
    """The visits of each part.

    Args:
        lookups: as in :class:`Visits`; else every activation is a lookup of its own (rule ``sequential``).
    """
    for part in parts:
        layers, steps = part.experts.shape[1], len(part.phase)
        key, start = np.empty(part.experts.size, dtype=np.int64), np.empty(steps * layers + 1, dtype=np.int64)
        block = np.require(part.experts, np.uint16, ["C", "W"])
        count = run(None, "unpack", block, part.row_start, num_experts, key, start)
        lookup_start, lookup_key = start, key[:count]
        if lookups:
            lookup_start, lookup_key = np.empty_like(start), np.empty(count, dtype=np.int64)
            seen = np.full(layers * num_experts, -1, dtype=np.int64)
            is_prefill = part.phase == PREFILL
            found = run(None, "distinct", layers, is_prefill, start, key, seen, lookup_start, lookup_key)
            lookup_key = lookup_key[:found]
        yield VisitsPart(layers, part.phase, part.starts_request, start, key[:count], lookup_start, lookup_key)


def stream_counts(
    parts: Iterable[Part],
    num_experts: int,
    sizes: Ints,
    policy: Policy,
    capacity_bytes: int,
    *,
    per_layer: bool = False,
    rule: Rule = "sequential",
    phase: Phase = "all",
    training_uses: Ints | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Counts:
    """Replay parts, one after the other: the counts of :func:`moesim.replay.count`, without ``hit``.

    Args:
        sizes, per_layer, phase, training_uses: as there. [layers * experts]
        progress: called with the number of visits done.

    Raises:
        PolicyError: the policy needs the future or gate weights, which a stream doesn't have; or as there.
    """
    if policy.note is not None:
        raise PolicyError.of("policy", f"{policy.name!r} needs more than a stream has", "`moesim.replay.count`")
    layers = len(sizes) // num_experts
    check_capacity(sizes, policy, capacity_bytes, layers if per_layer else 1, training_uses)
    given = contexts(
        sizes, capacity_bytes, experts_per_layer=num_experts, per_layer=per_layer, training_uses=training_uses
    )
    caches = pack(policy, given)
    totals = np.zeros((4, layers), dtype=np.int64)
    overshoot = done = 0
    for part in visits_parts(parts, num_experts, lookups=rule != "sequential"):
        steps, hit = len(part.phase), np.empty(len(part.lookup_key), dtype=np.bool_)
        lookups = part.lookup_start, part.lookup_key
        uses = Uses(layers, part.starts_request, part.start, part.key, np.zeros(0), *lookups, hit)
        if rule == "sequential":
            run(policy, "sequential", caches, uses, 0, steps)
        else:
            overshoot = max(overshoot, run(policy, "by_visit", caches, uses, 0, steps, rule == "evict_after"))
        check_fault(policy, caches)
        counted = np.ones(steps, dtype=np.bool_) if phase == "all" else part.phase == DECODE
        run(None, "tally", part.start, *lookups, hit, caches.sizes, counted, totals)
        done += steps * layers
        progress(done)
    return Counts(totals[ACTIVATIONS], totals[LOOKUPS], totals[HITS], totals[FETCHED_BYTES], overshoot, None)


@dataclass(frozen=True)
class _Piece:
    """Steps of one request: rows of the trace, and tokens of each step."""

    row: Ints
    tokens: Ints
    phase: int
    starts: bool


def _pieces(trace: RoutingTrace, request: int, most: int) -> Iterator[_Piece]:
    """A request's prompt, then its output ``most`` tokens at a time."""
    rows = trace.rows_of(request)
    row, is_prompt = np.arange(rows.start, rows.stop), np.asarray(trace.phase[rows]) == PREFILL
    prompt, output = row[is_prompt], row[~is_prompt]
    if len(prompt):
        yield _Piece(prompt, np.array([len(prompt)]), PREFILL, True)
    for first in range(0, len(output), most):
        some = output[first : first + most]
        yield _Piece(some, np.ones(len(some), dtype=np.int64), DECODE, first == 0 and not len(prompt))


def _joined(trace: RoutingTrace, pieces: list[_Piece]) -> Part:
    row = np.concatenate([piece.row for piece in pieces])
    tokens = np.concatenate([piece.tokens for piece in pieces])
    starts = np.zeros(len(tokens), dtype=np.bool_)
    starts[np.cumsum([0, *(len(piece.tokens) for piece in pieces[:-1])])] = [piece.starts for piece in pieces]
    together = bool(row[-1] - row[0] == len(row) - 1)
    experts = np.asarray(trace.experts[row[0] : row[-1] + 1] if together else trace.experts[row]).copy()
    forget(trace.experts)
    return Part(
        experts=experts,
        row_start=np.concatenate([[0], np.cumsum(tokens)]),
        phase=np.repeat([np.uint8(piece.phase) for piece in pieces], [len(piece.tokens) for piece in pieces]),
        starts_request=starts,
    )
