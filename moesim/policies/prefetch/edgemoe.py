"""EdgeMoE: the experts that most often followed what the token used in this layer and the one before.

score(e) = sum over the visit's tokens of P(e | choice in layer l - 1, choice in layer l), a table of the two last
layers' activations (Yi et al., arXiv 2308.14352, which fills it offline: from the training split where there is one;
else it is learned as the trace goes, so a step is scored by the steps before it). The paper's models use one expert a
token. With more, a choice is the ``set`` of a token's experts, which is rarely seen twice where many of many are
chosen, or its ``first`` expert alone (the one with the largest gate weight, where the trace has weights, else the
first recorded). The first two layers are not predicted, nor is what was never seen.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams
from moesim.policies.associations import follow_ups, routed


class Params(PolicyParams):
    """What a choice is, and how many."""

    choice: Literal["set", "first"] = Field("set", description="what of a token's experts makes its choice")
    budget: int | None = Field(None, ge=1, description="at most so many experts a visit; default: as many as it uses")


def candidates(params, visits, trace, rng):
    """One context for each token: its choices in two layers."""
    experts = routed(visits, trace)
    choice = _sets(experts) if params.choice == "set" else _first(experts, visits, trace)
    choice += 1  # 0: no expert
    most = int(choice.max()) + 1
    layer = np.arange(1, visits.num_layers)
    context = np.full((*choice.shape, 1), -1)
    context[:, 1:, 0] = (layer * most + choice[:, :-1]) * most + choice[:, 1:]
    return follow_ups(visits, experts, context, params.budget)


def _sets(experts):
    """A number for each distinct set of experts. [tokens, layers, top_k] -> [tokens, layers]"""
    ranked = np.sort(experts, axis=2)
    number = ranked[..., 0]
    for rank in range(1, ranked.shape[2]):
        pair = (number + 1) * (ranked.max() + 2) + ranked[..., rank] + 1
        number = np.unique(pair, return_inverse=True)[1].reshape(pair.shape)
    return number


def _first(experts, visits, trace):
    """The expert with the largest weight, else the first recorded. [tokens, layers, top_k] -> [tokens, layers]"""
    if trace.weights is None:
        return experts[..., 0].copy()
    heaviest = np.asarray(trace.weights)[visits.steps.row].argmax(axis=2)
    return np.take_along_axis(experts, heaviest[..., None], axis=2)[..., 0]
