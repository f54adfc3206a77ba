"""AdapMoE: the split with the least expected loads on demand, by dynamic programming.

cost_l(s) = E[M] - a_l P(M >= 1), where M counts those of a token's experts that are not among the layer's s cached
ones (cached ones at random: hypergeometric), and a_l is the probability that the next-layer prefetch, which brings one
expert, is right. A share r_l of tokens uses a single expert (adaptive gating), the others top-k.

Source: Zhong et al., "AdapMoE", arXiv 2408.10284; for top-2 this is exactly the cost in its released code (``dp.py``),
which comes with 32 accuracies for Mixtral-8x7B, 0 for the first layer. Here they are by default those of the trace's
recorded lookahead in the training split; without such a channel the mean of the code's others, 0.866.
"""

from math import comb

from pydantic import Field

from moesim.policies.api import PolicyParams
from moesim.policies.split import SplitFacts, least_cost

MEAN_ACCURACY = 0.866


class Params(PolicyParams):
    """What is known of the layers."""

    accuracy: float | list[float] | None = Field(
        None, description="of the prefetch; one number, or one for each MoE layer; default: as recorded"
    )
    single: float | list[float] = Field(0.0, description="share of tokens that use one expert only; likewise")


def slots(params: Params, facts: SplitFacts):
    """Least cost."""
    accuracy, single = _accuracy(params, facts), _by_layer(params.single, facts.num_layers)
    cost = [
        [
            single[layer] * _loads(facts.num_experts, 1, size, accuracy[layer])
            + (1 - single[layer]) * _loads(facts.num_experts, facts.top_k, size, accuracy[layer])
            for size in range(facts.num_experts + 1)
        ]
        for layer in range(facts.num_layers)
    ]
    return least_cost(cost, min(facts.slots, facts.num_layers * facts.num_experts))


def _accuracy(params, facts):
    """Of each layer's prefetch."""
    if params.accuracy is not None:
        return _by_layer(params.accuracy, facts.num_layers)
    if facts.accuracy is not None:
        return facts.accuracy.tolist()
    return [0.0] + [MEAN_ACCURACY] * (facts.num_layers - 1)


def _by_layer(values, num_layers):
    """One number for each layer; a list of another length is repeated or cut."""
    given = values if isinstance(values, list) and values else [values]
    return [float(given[layer % len(given)]) for layer in range(num_layers)]


def _loads(experts, wanted, size, accuracy):
    """E[M] - a P(M >= 1)."""
    absent = experts - size
    none_missing = comb(size, wanted) / comb(experts, wanted) if size >= wanted else 0.0
    return wanted * absent / experts - accuracy * (1 - none_missing)
