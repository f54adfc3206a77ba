"""What happens first among events at the same time.

Events are ordered by (time, order, sequence number). At equal times a transfer arrives before anybody asks for what
it brought, and asks are made before a link chooses what goes next, so that a demand made now precedes a prefetch.
"""

from __future__ import annotations

from heapq import heappush
from typing import Any

import simpy
from simpy.events import EventPriority

ARRIVE = EventPriority(1)  # SimPy's NORMAL, the order of plain events
ASK = EventPriority(2)
DISPATCH = EventPriority(3)


class Pause(simpy.Event):
    """A timeout whose order among events at the same time can be chosen."""

    def __init__(self, env: simpy.Environment, delay_s: float, order: EventPriority):
        super().__init__(env)
        self._ok = True
        self._value: Any = None
        env.schedule(self, order, delay_s)


class Moment(simpy.Event):
    """An event at a time of the clock, exactly; a timeout's delay, added to the clock, would round."""

    def __init__(self, env: simpy.Environment, at_s: float):
        super().__init__(env)
        self._ok = True
        self._value: Any = None
        heappush(env._queue, (at_s, ARRIVE, next(env._eid), self))
