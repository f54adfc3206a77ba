"""Known ahead: the step's whole routing is known when its first layer runs; nearest layers first.

A router that stands before the model and chooses for all layers at once, as Read-ME's (Cai et al., arXiv 2410.19123).
The experts of ``ahead`` layers are asked for in advance (default: all that follow). The first layer's are not: they
are known only when the step begins. Its model routes alike in all layers, the trace's does not: the trace's routing
is taken for the router's choice, and a run says so.
"""

import numpy as np
from pydantic import Field

from moesim.policies.api import PolicyParams, proposals


class Params(PolicyParams):
    """How much of what is known is asked for in advance."""

    ahead: int | None = Field(None, ge=1, description="layers ahead that are asked for; default: all of the step")

    @property
    def models_future(self) -> bool:
        """The router's choice is taken from the trace's routing."""
        return True


def candidates(params, visits, trace, rng):
    """Each true lookup, once: ``ahead`` layers before it, or at the step's first layer."""
    asked_in = np.repeat(np.arange(visits.num_visits), np.diff(visits.lookup_start))
    layer = asked_in % visits.num_layers
    lead = layer if params.ahead is None else np.minimum(layer, params.ahead)
    inside = layer > 0
    visit, key, target = (column[inside] for column in (asked_in - lead, visits.lookup_key, asked_in))
    return proposals(visits, visit, key, target, None)
