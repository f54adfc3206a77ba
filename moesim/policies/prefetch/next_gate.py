"""Next gate: feed this layer's router input to the router ``lookahead`` layers on, and fetch what it would choose.

Speculative loading of Eliseev & Mazur (arXiv 2312.17238), the predictor of HOBBIT (arXiv 2411.01433). It reads the
trace's recorded lookahead channel. Where the trace has none, give ``accuracy``: each true expert is then proposed with
that probability, and else replaced by a random expert of the layer that the token did not choose. Such a guess is
modelled from the truth, so a run says so. Proposals end at the step's last layer: nothing is known of the next token.
"""

import numpy as np
from pydantic import Field

from moesim.errors import PolicyError
from moesim.policies.api import PolicyParams, proposals


class Params(PolicyParams):
    """How far ahead, how many, and how good a modelled gate is."""

    lookahead: int = Field(1, ge=1, le=8, description="layers ahead")
    budget: int | None = Field(None, ge=1, description="at most so many experts a visit; default: all proposed")
    accuracy: float | None = Field(
        None, ge=0, le=1, description="probability that a true expert is proposed, for traces without the channel"
    )

    @property
    def models_future(self) -> bool:
        """Whether the proposals are made from the truth instead of a recorded channel."""
        return self.accuracy is not None


def candidates(params, visits, trace, rng):
    """The experts predicted for the layer ``lookahead`` on, those wanted by most tokens first."""
    d, layers = params.lookahead, visits.num_layers
    if params.accuracy is None and d not in trace.lookahead:
        raise PolicyError.of(
            "lookahead",
            f"the trace {trace.card.name!r} records no lookahead {d}",
            "give `accuracy`, e.g. accuracy: 0.9, or choose a lookahead that it has: "
            + (", ".join(map(str, sorted(trace.lookahead))) or "none"),
        )
    predicted = trace.lookahead[d] if params.accuracy is None else _modelled(trace, d, params.accuracy, rng)
    steps = visits.steps
    step_of_row = np.repeat(np.arange(steps.num_steps), steps.tokens)
    guess = np.asarray(predicted)[steps.row]  # [tokens, layers, top_k]
    token, layer, _ = np.nonzero(guess != trace.sentinel)
    expert = guess[guess != trace.sentinel].astype(np.int64)
    inside = layer + d < layers
    visit = step_of_row[token[inside]] * layers + layer[inside]
    key = (layer[inside] + d) * visits.num_experts + expert[inside]
    return proposals(visits, visit, key, visit + d, params.budget)


def _modelled(trace, d, accuracy, rng):
    """A lookahead channel in which each true expert of layer l + d is right with probability ``accuracy``."""
    truth = np.asarray(trace.experts)
    channel = np.full_like(truth, trace.sentinel)
    channel[:, :-d] = truth[:, d:]
    wrong = (rng.random(channel.shape) >= accuracy) & (channel != trace.sentinel)
    for token, layer, rank in zip(*np.nonzero(wrong), strict=True):
        others = np.setdiff1d(np.arange(trace.num_experts), channel[token, layer])
        channel[token, layer, rank] = rng.choice(others) if len(others) else trace.sentinel
    return channel
