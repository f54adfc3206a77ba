"""Activation matching: do what the earlier request did whose activations so far look most alike.

Each request has a matrix M[l, e], how often it used expert e in layer l. At every visit the running request's matrix
is compared with those of the last ``memory`` finished requests by the mean over layers of the cosine of their rows;
the nearest one, N, scores the next ``horizon`` layers' experts: score(l', e) = N[l', e] / sum_e N[l', e]
x (1 - (l' - l) / L). Requests that run in the same step add their scores.

MoE-Infinity's expert activation matrices (Xue et al., arXiv 2401.14361; mean of row cosines as in its released
tracer, which blanks the layers up to the running one in the stored matrices before comparing: not followed, since
what is left to compare is then the running request's past tokens only). There stored matrices are clustered, or
replaced by least use; here the oldest is. Learned from the training split where there is one, else as
the trace goes; nothing is proposed before a request has ended.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams
from moesim.policies.associations import Chosen, learns, routed


class Params(PolicyParams):
    """How much is remembered, how far ahead, and how many."""

    memory: int = Field(64, ge=1, description="finished requests that are remembered")
    horizon: int = Field(1, ge=1, le=64, description="layers ahead")
    budget: int | None = Field(
        None, ge=1, description="at most so many experts a visit; default: as many as it uses, for each layer ahead"
    )


def candidates(params, visits, trace, rng):
    """Step by step: compare, propose, take down."""
    steps, experts = visits.steps, routed(visits, trace)
    request = visits.request_of_row[steps.row]
    ends_in = dict(zip(request.tolist(), np.repeat(np.arange(steps.num_steps), steps.tokens).tolist(), strict=True))
    memory = _Memory(params.memory, visits.num_layers, visits.num_experts)
    running: dict[int, np.ndarray] = {}
    chosen = Chosen(visits, params.budget)
    for step in range(steps.num_steps):
        rows = np.arange(steps.row_start[step], steps.row_start[step + 1])
        scores = np.zeros((visits.num_layers, params.horizon * visits.num_experts))
        for id_ in dict.fromkeys(request[rows].tolist()):
            before = running.get(id_, np.zeros((visits.num_layers, visits.num_experts), dtype=np.float32))
            now = running[id_] = before + _activations(experts[rows[request[rows] == id_]], visits.num_experts)
            if memory.size:
                scores += memory.follow_ups(memory.nearest(before, now), params.horizon)
        if memory.size and visits.num_layers > 1:
            chosen.add(step, np.arange(visits.num_layers), params.horizon, scores)
        for id_ in dict.fromkeys(request[rows].tolist()):
            if ends_in[id_] == step:
                ended = running.pop(id_)
                if learns(visits, step):
                    memory.add(ended)
    return chosen.candidates()


def _activations(experts, num_experts):
    """How often each expert is used. [tokens, layers, top_k] -> [layers, experts]"""
    _, layers, _ = experts.shape
    key = np.arange(layers)[:, None] * num_experts + experts
    return (
        np.bincount(key[experts >= 0], minlength=layers * num_experts).reshape(layers, num_experts).astype(np.float32)
    )


def _unit(rows):
    """Rows of length 1 (or 0)."""
    length = np.sqrt((rows * rows).sum(axis=-1, keepdims=True))
    return rows / np.where(length > 0, length, 1)


class _Memory:
    """Matrices of finished requests. unit, share: [memory, layers, experts]"""

    def __init__(self, memory, layers, experts):
        self.unit = np.zeros((memory, layers, experts), dtype=np.float32)
        self.share = np.zeros_like(self.unit)
        self.size = self._next = 0

    def add(self, activations):
        """Remember a request; the oldest makes room."""
        total = activations.sum(axis=1, keepdims=True)
        self.unit[self._next], self.share[self._next] = _unit(activations), activations / np.where(total > 0, total, 1)
        self.size = max(self.size, self._next + 1)
        self._next = (self._next + 1) % len(self.unit)

    def nearest(self, before, now):
        """The most alike at each layer, when rows up to it hold this step and later rows don't yet. [layers]"""
        unit = self.unit[: self.size]
        old, new = (np.einsum("mle,le->lm", unit, _unit(rows)) for rows in (before, now))
        alike = np.cumsum(new - old, axis=0) + old.sum(axis=0)
        return alike.argmax(axis=1)

    def follow_ups(self, nearest, horizon):
        """Scores of the next layers' experts, 0 past the last layer. [layers, horizon * experts]"""
        _, layers, experts = self.share.shape
        scores = np.zeros((layers, horizon, experts))
        for ahead in range(1, min(horizon, layers - 1) + 1):
            here = np.arange(layers - ahead)
            scores[here, ahead - 1] = self.share[nearest[here], here + ahead] * (1 - ahead / layers)
        return scores.reshape(layers, -1)
