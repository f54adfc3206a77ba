"""How the GPU's cache is shared out among layers, where each has a part of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError, ScenarioError
from moesim.policies.api import Policy
from moesim.policies.split import SplitFacts
from moesim.traces.trace import DECODE, RoutingTrace
from moesim.traces.visits import Visits


def layer_bytes(
    policy: Policy, capacity: int, largest: int, top_k: int, training: Visits | None, trace: RoutingTrace | None = None
) -> tuple[int, ...]:
    """Bytes of each layer.

    Args:
        capacity: of the whole cache, in bytes.
        largest: bytes of the largest expert, which is a slot.
        training: the training split's visits.
        trace: that they are of, where its lookahead counts.

    Raises:
        ScenarioError: there is less than one slot for each layer.
        PolicyError: the split asks for what it is not given.
    """
    assert training is not None
    facts = _facts(training, capacity // largest, top_k, trace)
    if facts.slots < facts.num_layers:
        told = f"{facts.slots} slots do not give each of {facts.num_layers} layers one"
        raise ScenarioError.of("memory.gpu_experts", told, f"at least {facts.num_layers * largest / 2**20:.1f} MiB")
    slots = np.asarray(policy.module.slots(policy.params, facts))
    if (slots < 1).any() or slots.sum() > facts.slots:
        raise PolicyError.of(f"policy {policy.name!r} (split)", f"gives {slots.tolist()}, and there are {facts.slots}")
    return tuple(int(count) * largest for count in slots)


def pinned_keys(
    names: Sequence[str], num_layers: int, num_experts: int, sizes: NDArray[np.int64], room: Sequence[int]
) -> tuple[int, ...]:
    """The keys of experts that are named ``layer:expert`` or ``layer:*``.

    Args:
        room: bytes of the cache, or of each layer's part.

    Raises:
        ScenarioError: there is no such expert, or they leave less than one expert's space.
    """
    keys: set[int] = set()
    for name in names:
        layer, _, expert = name.partition(":")
        if int(layer) >= num_layers or (expert != "*" and int(expert) >= num_experts):
            told = f"{name!r} is not among {num_layers} MoE layers of {num_experts} experts"
            raise ScenarioError.of("memory.pinned", told, "layer:expert, both counted from 0")
        first = int(layer) * num_experts
        keys.update(range(first, first + num_experts) if expert == "*" else [first + int(expert)])
    part = len(sizes) // len(room)
    for number, space in enumerate(room):
        taken = sum(int(sizes[key]) for key in keys if key // part == number)
        if taken and taken + int(sizes.max()) > space:
            told = f"pinned experts take {taken} of {space} bytes, and one more expert must fit"
            raise ScenarioError.of("memory.pinned", told, "fewer of them, or more memory.gpu_experts")
    return tuple(sorted(keys))


def _facts(training: Visits, slots: int, top_k: int, trace: RoutingTrace | None) -> SplitFacts:
    layers, experts = training.num_layers, training.num_experts
    uses = np.bincount(training.activation_key, minlength=training.num_keys).reshape(layers, experts)
    lookups = np.diff(training.lookup_start).reshape(-1, layers)
    decode = training.steps.phase == DECODE
    return SplitFacts(
        num_layers=layers,
        num_experts=experts,
        top_k=top_k,
        slots=slots,
        uses=uses.astype(np.float64),
        demand=lookups[decode if decode.any() else slice(None)].mean(axis=0),
        hits=layer_hits(training),
        accuracy=None if trace is None else first_choice_accuracy(trace, training.steps.row),
    )


def first_choice_accuracy(trace: RoutingTrace, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """How often a token uses the expert that the gate of lookahead 1 puts first; 0 in the first layer. [layers]"""
    if 1 not in trace.lookahead:
        return None
    first = np.asarray(trace.lookahead[1])[rows][:, :-1, :1]
    used = np.asarray(trace.experts)[rows][:, 1:]
    known = first[..., 0] != trace.sentinel
    right = (used == first).any(axis=2) & known
    return np.concatenate([[0.0], right.sum(axis=0) / np.maximum(known.sum(axis=0), 1)])


def layer_hits(visits: Visits) -> NDArray[np.float64]:
    """LRU's hits in each layer with 0, 1, 2, … experts of space. [layers, experts + 1]

    A lookup hits in a cache that holds more experts than were used in its layer since it was used last; a visit's
    lookups are all judged before it.
    """
    layers, experts = visits.num_layers, visits.num_experts
    hits = np.zeros((layers, experts + 1))
    recent: list[list[int]] = [[] for _ in range(layers)]
    keys, lookups = visits.activation_key.tolist(), visits.lookup_key.tolist()
    for visit in range(visits.num_visits):
        stack = recent[visit % layers]
        for key in lookups[visits.lookup_start[visit] : visits.lookup_start[visit + 1]]:
            if key in stack:
                hits[visit % layers, stack.index(key) + 1] += 1
        for key in keys[visits.activation_start[visit] : visits.activation_start[visit + 1]]:
            if key in stack:
                stack.remove(key)
            stack.insert(0, key)
    return np.cumsum(hits, axis=1)
