"""A bound on the time with perfect caching and prefetching, in one pass.

Up to each set so many fetches are needed (``caching.fewest``; prefetching can't lower them), the link makes them one
after the other, and what is left of the compute comes after.
"""

from __future__ import annotations

import numpy as np

from moesim.optimal.caching.fewest import fewest_by_set
from moesim.optimal.prefetch.problem import TimedRequests


def prefix_bound_s(problem: TimedRequests) -> float:
    """No schedule ends earlier: the link's work up to each set, then the compute from there on."""
    needed = fewest_by_set(problem.requests, problem.slots, problem.model, warm=problem.warm)
    shortest_s = float(problem.fetch_s.min())
    left_s = np.cumsum(problem.compute_s[::-1])[::-1]
    some = needed > 0
    by_link = (problem.link_from_s + shortest_s * needed + problem.arrival_s + left_s)[some]
    return max(problem.busy_s, float(by_link.max(initial=0.0)))
