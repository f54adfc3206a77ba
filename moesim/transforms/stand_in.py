"""A trace of one model in place of a trace of another, with as many layers as the other has."""

from __future__ import annotations

import numpy as np

from moesim.errors import TraceError
from moesim.traces.card import MAX_EXPERTS
from moesim.traces.trace import RoutingTrace


def stand_in(trace: RoutingTrace, num_layers: int) -> RoutingTrace:
    """The trace with its L layers repeated in a cycle to ``num_layers``: layer l is the source's layer l mod L.

    A lookahead at layer l stays where layer l + d of the new trace is the source layer that it predicts; at a seam,
    and past the last layer, there is none (``sentinel``). The sizes of the source's experts are left out: a stand-in
    runs with the sizes of the model that it stands in for. Origin "stand-in"; a synthetic trace stays synthetic.

    Raises:
        TraceError: ``num_layers`` is no possible number of layers.
    """
    if not 1 <= num_layers <= MAX_EXPERTS:
        raise TraceError.of(trace.card.name, f"can't stand in for a model with {num_layers} MoE layers")
    source = np.arange(num_layers) % trace.num_layers
    lookahead = {}
    for distance, channel in trace.lookahead.items():
        lookahead[distance] = repeated = channel[:, source]
        coherent = (source + distance < trace.num_layers) & (np.arange(num_layers) + distance < num_layers)
        repeated[:, ~coherent] = trace.sentinel
    return RoutingTrace(
        card=trace.card.derived(
            f"stand_in(num_layers={num_layers})",
            "stand-in",
            moe_layer_indices=list(range(num_layers)),
            expert_bytes=None,
            expert_precision=None,
        ),
        experts=trace.experts[:, source],
        request=trace.request,
        position=trace.position,
        phase=trace.phase,
        weights=None if trace.weights is None else trace.weights[:, source],
        lookahead=lookahead,
        recorded=None if trace.recorded is None else trace.recorded[:, source],
        step=trace.step,
        domain=trace.domain,
        token_id=trace.token_id,
    )
