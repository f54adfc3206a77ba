"""A trace of one model in place of a trace of another, with as many layers as the other has."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from moesim.errors import TraceError
from moesim.traces.card import MAX_EXPERTS
from moesim.traces.trace import RoutingTrace
from moesim.transforms.selection import at_layers


@lru_cache(maxsize=1)
def stand_in(trace: RoutingTrace, num_layers: int) -> RoutingTrace:
    """The trace with its L layers repeated in a cycle to ``num_layers``: layer l is the source's layer l mod L.

    Across a seam there is no lookahead (see :func:`moesim.transforms.selection.at_layers`). The sizes of the source's
    experts are left out: a stand-in runs with the sizes of the model that it stands in for. Origin "stand-in"; a
    synthetic trace stays synthetic.

    Raises:
        TraceError: ``num_layers`` is no possible number of layers.
    """
    if not 1 <= num_layers <= MAX_EXPERTS:
        raise TraceError.of(trace.card.name, f"can't stand in for a model with {num_layers} MoE layers")
    card = trace.card.derived(
        f"stand_in(num_layers={num_layers})",
        "stand-in",
        moe_layer_indices=list(range(num_layers)),
        expert_bytes=None,
        expert_precision=None,
    )
    return at_layers(trace, np.arange(num_layers) % trace.num_layers, card)
