"""Whether requests came faster than they could be served."""

from __future__ import annotations

import numpy as np

from moesim.replay.kernels import serving_state as state
from moesim.replay.serving import ServingOutcome
from moesim.setup.serving import Limits

#: A queue that grows by more than this share of the arrivals, over the second half of the time that requests come for,
#: grows for good; and what chance adds is below so many standard deviations of their number.
GROWTH_SHARE, DEVIATIONS = 0.05, 3.0


def is_saturated(outcome: ServingOutcome, limits: Limits) -> bool:
    """Of an open workload: whether more requests stayed in the system the longer they came. A closed loop never is."""
    if limits.users:
        return False
    timeline = outcome.use.timeline
    coming = np.flatnonzero(timeline[:, state.ARRIVED])
    if len(coming) < 4:
        return False
    last, middle = int(coming[-1]), int(coming[0] + coming[-1]) // 2
    arrived = float(timeline[middle : last + 1, state.ARRIVED].sum())
    grown = arrived - float(timeline[middle : last + 1, state.FINISHED].sum())
    waiting = timeline[:, state.WAITING_S] / outcome.interval_s
    queue_grew = waiting[max(last - 1, 0) : last + 1].max() > max(waiting[middle], 1.0)
    return bool(grown > max(GROWTH_SHARE * arrived, DEVIATIONS * np.sqrt(arrived)) and queue_grew)
