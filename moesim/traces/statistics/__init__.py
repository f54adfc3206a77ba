"""What a routing trace is like: every locality figure, with its exact definition, as pure functions of arrays.

Start with ``rows.py``: which tokens of a trace a figure is about, and which of them follow each other. Then
``load.py`` (how unevenly experts are used, by domain, over time), ``locality.py`` (what tokens share with the tokens
before them), ``layers.py`` (what a layer says about the next ones) and ``consistency.py`` (SRP and SCH, the measures of
"Not All Models Suit Expert Offloading").

A layer for which a figure is undefined (nothing recorded, too few tokens) has NaN there.
"""

from moesim.traces.statistics.consistency import segment_cache_hit_rate, segment_routing_performance
from moesim.traces.statistics.layers import (
    lookahead_recall,
    next_layer_information,
    pair_counts,
    pair_lift,
    successor_recall,
)
from moesim.traces.statistics.load import divergence, effective_experts, load, load_cv
from moesim.traces.statistics.locality import (
    consecutive_overlap,
    cycle_bytes,
    cycle_experts,
    distinct_bound,
    distinct_experts,
    distinct_if_uniform,
    reuse_gaps,
    reuse_shares,
)
from moesim.traces.statistics.rows import PHASES, Phase, TokenRows, first_requests, token_rows

__all__ = [
    "PHASES",
    "Phase",
    "TokenRows",
    "consecutive_overlap",
    "cycle_bytes",
    "cycle_experts",
    "distinct_bound",
    "distinct_experts",
    "distinct_if_uniform",
    "divergence",
    "effective_experts",
    "first_requests",
    "load",
    "load_cv",
    "lookahead_recall",
    "next_layer_information",
    "pair_counts",
    "pair_lift",
    "reuse_gaps",
    "reuse_shares",
    "segment_cache_hit_rate",
    "segment_routing_performance",
    "successor_recall",
    "token_rows",
]
