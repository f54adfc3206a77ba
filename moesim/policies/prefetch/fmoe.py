"""fMoE: find the earlier token whose gate weights in the layers so far look most alike, and fetch what it used next.

An expert map holds a token's gate weights, layer by layer. At layer l the running map's layers 0..l are compared with
those of the last ``memory`` maps by cosine; the nearest map N names the experts of layer l + ``distance``, heaviest
first, until their weights sum to 1 - cosine + ``floor`` at least (an unlike map calls for more of them), and no fewer
than ``fewest``.

Source: Yu et al., "fMoE" (FineMoE), arXiv 2502.05370, from memory: expert maps, trajectory search, a selection
threshold that grows with unlikeness, prefetch distance 3; it searches the first layers by the prompt's embedding
(semantic search), which a trace does not hold, and drops maps that resemble others most, where here the oldest goes. A
trace holds the weights of the chosen experts only. Learned from the training split where there is one, else as the
trace goes; prefill tokens are not stored.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams, proposals
from moesim.policies.associations import learns, routed
from moesim.traces.trace import DECODE


class Params(PolicyParams):
    """How much is remembered, how far ahead, and how many."""

    memory: int = Field(256, ge=1, le=65536, description="maps that are remembered")
    distance: int = Field(3, ge=1, le=16, description="layers ahead")
    floor: float = Field(0.5, ge=0, le=1, description="share of weight that is fetched in any case")
    fewest: int = Field(1, ge=0, description="experts that are fetched in any case, for each token")


def candidates(params, visits, trace, rng):
    """Step by step: compare, propose, remember."""
    steps, layers, experts = visits.steps, visits.num_layers, visits.num_experts
    used = routed(visits, trace)
    maps = np.zeros((params.memory, layers, experts), dtype=np.float32)
    size = place = 0
    found = []
    for step in range(steps.num_steps):
        rows = slice(steps.row_start[step], steps.row_start[step + 1])
        now = _maps(used[rows], visits, trace, rows)
        if size and steps.phase[step] == DECODE and layers > params.distance:
            found += [_propose(params, maps[:size], running, step * layers) for running in now]
        if steps.phase[step] == DECODE and learns(visits, step):
            for running in now:
                maps[place] = running
                size, place = max(size, place + 1), (place + 1) % params.memory
    none = np.zeros((3, 0), dtype=np.int64)
    visit, key, target = np.concatenate([none, *found], axis=1)
    return proposals(visits, visit, key, target, None)


def _maps(used, visits, trace, rows):
    """Gate weights of tokens. [tokens, layers, experts]"""
    maps = np.zeros((len(used), visits.num_layers, visits.num_experts), dtype=np.float32)
    token, layer, rank = np.nonzero(used >= 0)
    if trace.weights is None:
        weight = 1 / trace.top_k
    else:
        weight = np.asarray(trace.weights)[visits.steps.row[rows]][token, layer, rank]
    maps[token, layer, used[token, layer, rank]] = weight
    total = maps.sum(axis=2, keepdims=True)
    return maps / np.where(total > 0, total, 1)


def _propose(params, maps, running, first_visit):
    """(visit, key, target) for every layer that has one ``distance`` on. [3, proposals]"""
    layers, experts = running.shape
    here = np.arange(layers - params.distance)
    dots = np.cumsum(np.einsum("mle,le->ml", maps, running), axis=1)
    lengths = np.sqrt(np.cumsum((maps**2).sum(axis=2), axis=1) * np.cumsum((running**2).sum(axis=1)))
    alike = (dots / np.where(lengths > 0, lengths, 1))[:, : len(here)]
    nearest = alike.argmax(axis=0)
    weights = maps[nearest, here + params.distance]
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    wanted = np.minimum(1.0, 1.0 - alike[nearest, here] + params.floor)
    before = np.cumsum(ranked, axis=1) - ranked
    chosen = (ranked > 0) & ((before < wanted[:, None]) | (np.arange(experts) < params.fewest))
    layer, rank = np.nonzero(chosen)
    visit = first_visit + layer
    key = (layer + params.distance) * experts + order[layer, rank]
    return np.stack([visit, key, visit + params.distance])
