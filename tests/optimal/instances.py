"""Random workloads for optima, and answers by searching everything."""

from itertools import combinations

import numpy as np

from moesim.optimal.caching.requests import requests_from


def random_requests(rng, *, keys=6, sets=9, largest=3):
    """Sets of 1 to ``largest`` keys; some keys are liked more than others."""
    keys = int(rng.integers(2, keys + 1))
    liking = rng.dirichlet(np.ones(keys))
    chosen = []
    for _ in range(int(rng.integers(1, sets + 1))):
        size = int(rng.integers(1, min(largest, keys) + 1))
        chosen.append(rng.choice(keys, size, replace=False, p=(liking + 0.02) / (liking + 0.02).sum()).tolist())
    return requests_from(chosen, keys)


def cheapest_by_search(requests, sizes, costs, capacity, model, *, warm=False):
    """The least cost of misses, by dynamic programming over what the cache may hold."""
    keys = range(requests.num_keys)

    def fits(held):
        return sum(sizes[key] for key in held) <= capacity

    def stays(content, members):
        """Whether the cache may hold this after a set."""
        largest = sum(sizes[key] for key in members) + max(sizes) if model == "overshoot" else 0
        return sum(sizes[key] for key in content) <= max(capacity, largest)

    everything = [frozenset(c) for n in range(requests.num_keys + 1) for c in combinations(keys, n)]
    best = {held: 0.0 for held in everything if fits(held)} if warm else {frozenset(): 0.0}
    for members in map(frozenset, requests.sets):
        after = {}
        for held, cost in best.items():
            paid = cost + sum(costs[key] for key in members - held)
            others = sorted(held - members) if model == "together" else sorted(held | members)
            for count in range(len(others) + 1):
                for kept in map(frozenset, combinations(others, count)):
                    content = kept | members if model == "together" else kept
                    if stays(content, members) and paid < after.get(content, np.inf):
                        after[content] = paid
        best = after
    return min(best.values())
