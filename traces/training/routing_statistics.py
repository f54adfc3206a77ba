"""How local the routing of a trace is on decode: the few numbers that small and real models are compared by."""

from typing import Any

import numpy as np

SHUFFLES = 4  # of the tokens, to estimate what mutual information chance alone shows in a sample of this size


def routing_statistics(experts: np.ndarray, request: np.ndarray, num_experts: int) -> dict[str, Any]:
    """The statistics of `experts` [tokens, layers, top_k], the decode rows of requests `request` [tokens], in order."""
    top_k = experts.shape[2]
    chosen = np.zeros((*experts.shape[:2], num_experts), dtype=bool)
    np.put_along_axis(chosen, experts.astype(np.int64), True, axis=2)
    overlap = consecutive_overlap(chosen, request) / (top_k / num_experts)
    uniform = 2 * top_k / num_experts
    hits = lru_hit_rate(experts, 2 * top_k)
    return {
        "decode_tokens": len(experts),
        "consecutive_overlap_over_chance": round(float(overlap), 3),
        "load_cv": round(float(load_cv(chosen)), 3),
        "next_layer_information_over_entropy": round(float(next_layer_information(experts, num_experts)), 3),
        "lru_2k_hit_rate_per_activation": round(hits, 4),
        "lru_2k_hit_rate_over_uniform": round(hits / uniform, 3),
    }


def consecutive_overlap(chosen: np.ndarray, request: np.ndarray) -> float:
    """Share of a token's experts that the token before it in the same request used too, mean over layers.

    `chosen`: bool [tokens, layers, num_experts].
    """
    same = request[1:] == request[:-1]
    both = (chosen[1:] & chosen[:-1])[same].sum(axis=2)
    return float((both / chosen[1:][same].sum(axis=2)).mean())


def load_cv(chosen: np.ndarray) -> float:
    """Standard deviation over mean of the activations per expert, mean over layers."""
    load = chosen.sum(axis=0)
    return float((load.std(axis=1) / load.mean(axis=1)).mean())


def next_layer_information(experts: np.ndarray, num_experts: int) -> float:
    """I(first-ranked expert of layer l; of layer l + 1) / H(of layer l + 1), mean over l.

    The plug-in estimate, less its mean over shuffles of the tokens (which share no information).
    """
    first = experts[:, :, 0].astype(np.int64)
    rng = np.random.default_rng(0)
    ratios = []
    for layer in range(first.shape[1] - 1):
        here, after = first[:, layer], first[:, layer + 1]
        chance = [information(rng.permutation(here), after, num_experts) for _ in range(SHUFFLES)]
        entropy = information(after, after, num_experts)
        if entropy > 0:
            ratios.append((information(here, after, num_experts) - float(np.mean(chance))) / entropy)
    return float(np.mean(ratios))


def information(one: np.ndarray, other: np.ndarray, values: int) -> float:
    """Mutual information in nats of two integer arrays below `values`, by their observed frequencies."""
    joint = np.bincount(one * values + other, minlength=values * values).reshape(values, values) / len(one)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / expected[seen])).sum())


def lru_hit_rate(experts: np.ndarray, capacity: int) -> float:
    """Hits per activation of an LRU cache of `capacity` experts for each layer, over all tokens in order, cold at first.

    A token's activations are judged before any of its experts is inserted; recency follows the recorded order.
    """
    hits = 0
    for layer in range(experts.shape[1]):
        cache: dict[int, None] = {}
        for token in experts[:, layer].tolist():
            hits += sum(expert in cache for expert in token)
            for expert in token:
                cache.pop(expert, None)
                cache[expert] = None
            while len(cache) > capacity:
                del cache[next(iter(cache))]
    return hits / experts.size
