"""Next gate: feed this layer's router input to the router ``lookahead`` layers on, and fetch what it would choose.

Speculative loading of Eliseev & Mazur (arXiv 2312.17238), the predictor of HOBBIT (arXiv 2411.01433). It reads the
trace's recorded lookahead channel. Where the trace has none, give ``accuracy``: each true expert is then proposed with
that probability, and else replaced by a random expert of the layer that the token did not choose. Such a guess is
modelled from the truth, so a run says so. Proposals end at the step's last layer: nothing is known of the next token.
"""

from pydantic import Field

from moesim.policies.api import PolicyParams, proposals
from moesim.policies.gates import Accuracy, guesses


class Params(PolicyParams):
    """How far ahead, how many, and how good a modelled gate is."""

    lookahead: int = Field(1, ge=1, le=8, description="layers ahead")
    budget: int | None = Field(None, ge=1, description="at most so many experts a visit; default: all proposed")
    accuracy: Accuracy = Field(
        None,
        description="probability that a true expert is proposed, without the channel; one number, or by layer",
    )

    @property
    def models_future(self) -> bool:
        """Whether the proposals are made from the truth instead of a recorded channel."""
        return self.accuracy is not None


def candidates(params, visits, trace, rng):
    """The experts predicted for the layer ``lookahead`` on, those wanted by most tokens first."""
    guess = guesses(visits, trace, params.lookahead, params.accuracy, rng)
    return proposals(visits, guess.visit, guess.key, guess.visit + params.lookahead, params.budget)
