"""Path predictor: before a step's first MoE layer the whole path of its tokens is predicted; nearest layers first.

ExpertFlow's routing path predictor (Shen et al., arXiv 2410.17954: an encoder-decoder that names every layer's experts
in one pass, over 90 % right in its domain, 5 to 10 points less in another) and SiDA's hash function learned offline (Du
et al., arXiv 2310.18859). Such a network is not in a trace: each true expert is proposed with probability ``accuracy``,
else a random other one. Experts of the first layer are not asked for in advance, nor is the predictor's own time
counted. ``ahead`` limits how early a layer's experts are asked for.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams, proposals
from moesim.policies.gates import Accuracy, modelled


class Params(PolicyParams):
    """How good it is, and how early it is used."""

    accuracy: Accuracy = Field(0.9, description="probability that a true expert is named; one number, or by layer")
    ahead: int | None = Field(None, ge=1, description="layers ahead that are asked for; default: all of the step")

    @property
    def models_future(self) -> bool:
        """The predictor is modelled from the truth."""
        return True


def candidates(params, visits, trace, rng):
    """Each predicted use, once: ``ahead`` layers before it, or at the step's first layer."""
    steps, layers = visits.steps, visits.num_layers
    path = modelled(trace, 0, 1.0 if params.accuracy is None else params.accuracy, rng)[steps.row]
    step_of_row = np.repeat(np.arange(steps.num_steps), steps.tokens)
    token, layer, rank = np.nonzero(path != trace.sentinel)
    inside = layer > 0
    token, layer, rank = token[inside], layer[inside], rank[inside]
    lead = layer if params.ahead is None else np.minimum(layer, params.ahead)
    target = step_of_row[token] * layers + layer
    key = layer * visits.num_experts + path[token, layer, rank].astype(np.int64)
    return proposals(visits, target - lead, key, target, None)
