"""A bound on the time in phases: what is reached by some set at the earliest, and from there with the best content.

When a set's compute starts, the GPU (and host memory) hold no more than fits, whatever was fetched until then; so what
the sets after it need beyond the best such content crosses each link after that. With r_p(s) the earliest start of set
s for link p alone (as in ``prefix``), and r_p(c, s) the seconds to it from the start of set c with any content::

    t(s) >= r_p(s)   and   t(s) >= t(c) + r_p(c, s)   for each link p and each cut c before s

One link may bound the first sets and another one the rest, which no bound on a single link sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.answer import Stopwatch
from moesim.optimal.caching.fewest import fewest_by_set
from moesim.optimal.caching.requests import Requests
from moesim.optimal.prefetch.problem import TimedRequests

Floats = NDArray[np.float64]
#: Cuts are spread evenly; each costs a pass over what follows.
CUTS = 32


def phased_bound_s(problems: Sequence[TimedRequests], clock: Stopwatch, cuts: int = CUTS) -> float:
    """No schedule ends earlier; as far as there is time.

    Args:
        problems: the same sets and compute, a link each. Not for rule ``overshoot``, under which more than fits may be
            held.
    """
    sets, compute_s = problems[0].requests.num_sets, problems[0].compute_s
    starts_s = np.max([_reached(problem) for problem in problems], axis=0)
    if any(problem.model == "overshoot" for problem in problems):
        return float(starts_s[-1] + compute_s[-1])
    for cut in np.unique(np.linspace(0, sets - 1, cuts + 1).astype(int))[:-1].tolist():
        if clock.left_s == 0:
            break
        for problem in problems:
            after_s = starts_s[cut] + _reached(_from(problem, cut))
            starts_s[-len(after_s) :] = np.maximum(starts_s[-len(after_s) :], after_s)
    return float(starts_s[-1] + compute_s[-1])


def _reached(problem: TimedRequests) -> Floats:
    """No set's compute starts earlier. [sets]"""
    needed = fewest_by_set(problem.requests, problem.slots, problem.model, warm=problem.warm)
    come_s = problem.link_from_s + float(problem.fetch_s.min()) * needed + problem.arrival_s
    before_s = problem.lead_s + np.concatenate([[0.0], np.cumsum(problem.compute_s)[:-1]])
    return np.asarray(before_s + np.maximum.accumulate(np.maximum(np.where(needed > 0, come_s - before_s, 0.0), 0.0)))


def _from(problem: TimedRequests, cut: int) -> TimedRequests:
    """What there is from the start of a set's compute on, with anything in memory.

    Where sets stand together, that one does, which leaves less room for others.
    """
    stands = problem.model == "together"
    first, lead_s = (cut, 0.0) if stands else (cut + 1, float(problem.compute_s[cut]))
    requests, begin = problem.requests, problem.requests.start[first]
    rest = Requests(requests.start[first:] - begin, requests.key[begin:], requests.num_keys)
    return replace(
        problem, requests=rest, compute_s=problem.compute_s[first:], lead_s=lead_s, link_from_s=0.0, warm=True
    )
