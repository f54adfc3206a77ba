"""How local the routing of a trace is on decode: the few figures by which small and real models are compared."""

from typing import Any

import numpy as np

from moesim.traces import RoutingTrace
from moesim.traces import statistics as stats


def routing_statistics(trace: RoutingTrace) -> dict[str, Any]:
    """The figures of a trace's decode tokens, means over layers; defined in `moesim.traces.statistics`.

    `lru_2k`: hits per activation of an LRU cache of 2 top-k experts for each layer; uniform routing gives 2 k/E.
    """
    rows = stats.token_rows(trace, "decode")
    chance = trace.top_k / trace.num_experts
    shared, by_chance = stats.next_layer_information(rows, first_choice_only=True)
    hits = lru_hit_rate(rows.experts, 2 * trace.top_k)
    recall = {
        f"lookahead_{distance}_recall": float(np.nanmean(stats.lookahead_recall(rows, predicted, distance)))
        for distance, predicted in trace.lookahead.items()
    }
    figures = {
        "consecutive_overlap_over_chance": stats.consecutive_overlap(rows).mean() / chance,
        "load_cv": stats.load_cv(stats.load(rows)).mean(),
        "next_layer_information_less_chance": float(np.nanmean(shared - by_chance)),
        "lru_2k_hit_rate_per_activation": hits,
        "lru_2k_hit_rate_over_uniform": hits / (2 * chance),
        **recall,
    }
    return {"decode_tokens": rows.num_tokens} | {name: round(float(value), 4) for name, value in figures.items()}


def lru_hit_rate(experts: np.ndarray, slots: int) -> float:
    """Hits per activation of an LRU cache of `slots` experts for each layer, cold at first, over all tokens in order.

    `experts`: [tokens, layers, top_k]. A token's activations are judged before any of its experts is inserted; recency
    follows the recorded order.
    """
    hits = 0
    for layer in range(experts.shape[1]):
        cache: dict[int, None] = {}
        for token in experts[:, layer].tolist():
            hits += sum(expert in cache for expert in token)
            for expert in token:
                cache.pop(expert, None)
                cache[expert] = None
            while len(cache) > slots:
                del cache[next(iter(cache))]
    return hits / experts.size
