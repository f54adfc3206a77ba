"""What gates ahead of their time would choose: the trace's lookahead channels, or a model of them.

A modelled gate proposes each true expert with a given probability (its accuracy), and else a random expert of the
layer that the token did not choose. That is made from the truth, so a policy that uses it says ``models_future``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from moesim.errors import PolicyError
from moesim.traces.trace import RoutingTrace
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]


def _shares(value: float | list[float] | None) -> float | list[float] | None:
    if isinstance(value, list) and not value:
        raise ValueError("needs at least one number")
    if any(not 0 <= each <= 1 for each in (value if isinstance(value, list) else [value or 0.0])):
        raise ValueError("must be from 0 to 1")
    return value


#: One number, or one for each MoE layer that is predicted (a shorter list is repeated); None: nothing is modelled.
Accuracy = Annotated[float | list[float] | None, AfterValidator(_shares)]


@dataclass(frozen=True)
class Guesses:
    """Predicted uses, in the order in which tokens run.

    Attributes:
        visit: in which each is known. [guesses]
        key: the expert. [guesses]
        rank: its place among the token's predicted experts, as the channel lists them. [guesses]
    """

    visit: Ints
    key: Ints
    rank: Ints


def guesses(visits: Visits, trace: RoutingTrace, ahead: int, accuracy: Accuracy, rng: np.random.Generator) -> Guesses:
    """What the gate ``ahead`` layers on is thought to choose, at every visit; nothing past a step's last layer.

    Raises:
        PolicyError: the trace has no such channel and no accuracy is given.
    """
    if accuracy is None and ahead not in trace.lookahead:
        raise PolicyError.of(
            "lookahead",
            f"the trace {trace.card.name!r} records no lookahead {ahead}",
            "give `accuracy`, e.g. accuracy: 0.9, or choose a lookahead that it has: "
            + (", ".join(map(str, sorted(trace.lookahead))) or "none"),
        )
    predicted = trace.lookahead[ahead] if accuracy is None else modelled(trace, ahead, accuracy, rng)
    steps, layers = visits.steps, visits.num_layers
    step_of_row = np.repeat(np.arange(steps.num_steps), steps.tokens)
    guess = np.asarray(predicted)[steps.row]  # [tokens, layers, top_k]
    token, layer, rank = np.nonzero(guess != trace.sentinel)
    expert = guess[token, layer, rank].astype(np.int64)
    inside = layer + ahead < layers
    visit = step_of_row[token[inside]] * layers + layer[inside]
    return Guesses(visit, (layer[inside] + ahead) * visits.num_experts + expert[inside], rank[inside])


def modelled(
    trace: RoutingTrace, ahead: int, accuracy: float | list[float], rng: np.random.Generator
) -> NDArray[np.generic]:
    """A channel in which each true expert of layer l + ahead is right with that layer's accuracy."""
    truth = np.asarray(trace.experts)
    channel = np.full_like(truth, trace.sentinel)
    channel[:, : trace.num_layers - ahead] = truth[:, ahead:]
    right = np.resize(np.atleast_1d(accuracy), trace.num_layers)[ahead:]
    limit = np.concatenate([right, np.ones(ahead)])[: trace.num_layers]
    wrong = (rng.random(channel.shape) >= limit[None, :, None]) & (channel != trace.sentinel)
    nobody = 2 * trace.num_experts
    taken = np.where(channel == trace.sentinel, nobody, channel.astype(np.int64))
    for rank in range(trace.top_k):
        token, layer = np.nonzero(wrong[:, :, rank])
        other = _another(taken[token, layer], trace.num_experts, rng)
        channel[token, layer, rank] = np.where(other < 0, trace.sentinel, other)
        added = np.full((*taken.shape[:2], 1), nobody)
        added[token, layer, 0] = np.where(other < 0, nobody, other)
        taken = np.concatenate([taken, added], axis=2)
    return channel


def _another(taken: Ints, num_experts: int, rng: np.random.Generator) -> Ints:
    """For each row an expert that is not ``taken``, each with the same probability; -1 where all are. [rows, any]"""
    ascending = np.sort(taken, axis=1)
    free = num_experts - (taken < num_experts).sum(axis=1)
    chosen = (rng.random(len(taken)) * free).astype(np.int64)
    for column in ascending.T:
        chosen += chosen >= column
    return np.where(free > 0, chosen, -1)
