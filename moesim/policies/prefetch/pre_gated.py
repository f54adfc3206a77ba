"""Pre-gated: each layer's gate chooses the experts of the layer ``level`` on, and that choice is final.

Pre-gated MoE (Hwang et al., arXiv 2308.12066) retrains the gates so; a miss can then occur only in the first ``level``
layers, which stay serial. Its model routes otherwise than the trace's: that is not simulated here, the trace's own
routing is taken for the pre-gates' choice, and a run says so. Proposals end at the step's last layer.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams, proposals


class Params(PolicyParams):
    """How far ahead the gates choose."""

    level: int = Field(1, ge=1, le=8, description="layers ahead")

    @property
    def models_future(self) -> bool:
        """The retrained gates' choice is taken from the trace's routing."""
        return True


def candidates(params, visits, trace, rng):
    """The true lookups of the layer ``level`` on."""
    asked_in = np.repeat(np.arange(visits.num_visits), np.diff(visits.lookup_start))
    inside = asked_in % visits.num_layers >= params.level
    target = asked_in[inside]
    return proposals(visits, target - params.level, visits.lookup_key[inside], target, None)
