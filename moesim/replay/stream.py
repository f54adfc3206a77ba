"""Counts over a trace that need not fit into memory: block after block, in bounded memory.

Rule ``sequential`` at batch 1 in the trace's own order: one lookup per activation, as cache simulators count. That
needs none of a workload's steps and visits, only the routing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError
from moesim.policies.api import Policy
from moesim.replay.compile import run
from moesim.replay.expert_cache import contexts
from moesim.replay.kernels.uses import Uses
from moesim.replay.packed import check_fault, pack
from moesim.traces import RoutingTrace

#: Activations of a block: a few megabytes of arrays.
BLOCK = 1 << 18


@dataclass(frozen=True)
class StreamCounts:
    """Activations, and those that found their expert resident, of each layer. [layers]"""

    activations: NDArray[np.int64]
    hits: NDArray[np.int64]

    @property
    def hit_rate_per_activation(self) -> float | None:
        """Hits over activations."""
        total = int(self.activations.sum())
        return int(self.hits.sum()) / total if total else None


def stream_counts(
    blocks: Iterable[NDArray[Any]],
    num_experts: int,
    sizes: NDArray[np.int64],
    policy: Policy,
    capacity_bytes: int,
    *,
    per_layer: bool = False,
) -> StreamCounts:
    """Replay blocks of routing, one after the other.

    Args:
        blocks: experts of consecutive tokens; ``num_experts`` and above is no expert. Each [tokens, layers, top_k]
        sizes: bytes of each key. [layers * experts]

    Raises:
        PolicyError: the policy sees the future or learns, or is told when requests start: a stream has neither.
    """
    if policy.needs_future or policy.needs_training or policy.note is not None:
        raise PolicyError.of("policy", f"{policy.name!r} needs more than a stream has", "`moesim.replay.count`")
    layers = len(sizes) // num_experts
    parts = contexts(sizes, capacity_bytes, experts_per_layer=num_experts, per_layer=per_layer)
    caches = pack(policy, parts)
    total = StreamCounts(np.zeros(layers, dtype=np.int64), np.zeros(layers, dtype=np.int64))
    for block in blocks:
        tokens = len(block)
        key, start = np.empty(block.size, dtype=np.int64), np.empty(tokens * layers + 1, dtype=np.int64)
        count = run(None, "unpack", np.require(block, np.uint16, ["C", "W"]), num_experts, key, start)
        hit, none = np.empty(count, dtype=np.bool_), np.zeros(0, dtype=np.int64)
        uses = Uses(layers, np.zeros(tokens, dtype=np.bool_), start, key, np.zeros(0), none, none, hit)
        run(policy, "sequential", caches, uses, 0, tokens)
        check_fault(policy, caches)
        run(None, "tally", start, tokens * layers, hit, total.activations, total.hits)
    return total


def blocks_of(trace: RoutingTrace) -> Iterator[NDArray[Any]]:
    """A trace's routing in blocks; of a memory-mapped trace only what is read is held in memory."""
    tokens = max(1, BLOCK // (trace.num_layers * trace.top_k))
    for first in range(0, trace.num_tokens, tokens):
        yield np.asarray(trace.experts[first : first + tokens])
