"""A plan of transfers that stalls little: always the expert that is missing next, as soon as it may come.

When the link is free, the next expert that is missing is fetched if there is room, or if somebody on the GPU is needed
later than it: the one that is needed farthest leaves ("aggressive": Cao, Felten, Karlin and Li, 1995).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.optimal.prefetch.problem import TimedRequests
from moesim.traces.visits import next_use

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Transfers in the order of their starts.

    Attributes:
        key, start_s: of each transfer; where it is read from a drive, it starts there. [transfers]
        target: the set that it is for. [transfers]
        ready_s: when each set's experts are there and its compute starts. [sets]
        end_s: when all is computed.
    """

    key: NDArray[np.int64]
    start_s: Floats
    target: NDArray[np.int64]
    ready_s: Floats
    end_s: float


class _Gpu:
    """Who is on the GPU, and who may leave: the one whose next set is farthest.

    The running set's experts are needed now, so they never are the farthest.
    """

    def __init__(self, problem: TimedRequests):
        self._slots, self._used = problem.slots, 0
        self.here = [False] * problem.requests.num_keys
        self._next: list[int] = [0] * problem.requests.num_keys
        self._farthest: list[tuple[int, int]] = []

    def room_for(self, needed_in: int, *, at_any_price: bool) -> bool:
        """Make room for an expert of set ``needed_in``; False where nobody here is needed later."""
        while self._used == self._slots:
            later, key = self._farthest[0]
            is_stale = not self.here[key] or self._next[key] != -later
            if not is_stale and -later <= needed_in and not at_any_price:
                return False
            heapq.heappop(self._farthest)
            if not is_stale:
                self.here[key] = False
                self._used -= 1
        return True

    def take(self, key: int, needed_in: int) -> None:
        """An expert's transfer starts."""
        self.here[key] = True
        self._used += 1
        self.needed(key, needed_in)

    def needed(self, key: int, in_set: int) -> None:
        """When a resident expert is needed next."""
        self._next[key] = in_set
        heapq.heappush(self._farthest, (-in_set, key))


class Drive:
    """The drive below host memory: it reads what is not there, in the order of the transfers, and some way ahead.

    Args:
        read_s: of each expert. [keys]
        reads: for each expert and each of its transfers, in turn, whether it is read; beyond: the first one is.
        ahead: so many experts at most are read before they go up.
    """

    def __init__(self, read_s: Floats, reads: list[list[bool]], ahead: int, from_s: float):
        self._read_s, self._reads, self._ahead = read_s.tolist(), reads, ahead
        self._turn = [0] * len(read_s)
        self._free_s, self._went_up_s = from_s, [from_s] * ahead

    def way_of(self, key: int, now: float) -> tuple[float, float]:
        """When an expert's way begins that is to go up next, and when it is in host memory."""
        turn, reads = self._turn[key], self._reads[key]
        if not (reads[turn] if turn < len(reads) else turn == 0):
            return now, now
        begun_s = max(self._free_s, self._went_up_s[-self._ahead])
        return begun_s, begun_s + self._read_s[key]

    def goes_up(self, key: int, read_until_s: float | None, now: float) -> None:
        """It goes up now, and was read until then; None: it was in host memory."""
        self._turn[key] += 1
        if read_until_s is not None:
            self._free_s = read_until_s
            self._went_up_s.append(now)


def aggressive(problem: TimedRequests, drive: Drive | None = None) -> Plan:
    """The plan. Of a set larger than the GPU, which runs in waves, the experts are ready when the last has come."""
    walk, is_wavy = _Walk(problem), problem.requests.largest_set > problem.slots
    keys, starts, targets = [], [], []
    now = problem.link_from_s
    while (found := walk.next_missing()) is not None:
        key, needed_in = found
        begun_s, there_s = (now, now) if drive is None else drive.way_of(key, now)
        now = max(now, there_s)
        walk.catch_up(now)
        if not walk.gpu.room_for(needed_in, at_any_price=walk.waits_for(needed_in) and is_wavy):
            now = walk.next_end_s(now)
            continue
        keys.append(key)
        starts.append(begun_s if there_s > begun_s else now)
        targets.append(needed_in)
        walk.gpu.take(key, needed_in)
        if drive is not None:
            drive.goes_up(key, there_s if there_s > begun_s else None, now)
        now += walk.fetch_s[key]
        walk.arrives(needed_in, now)
    walk.catch_up(np.inf)
    return Plan(
        np.array(keys, np.int64), np.array(starts), np.array(targets, np.int64), np.array(walk.ready_s), walk.end_s
    )


class _Walk:
    """The GPU's way through the sets, as far as their experts have come."""

    def __init__(self, problem: TimedRequests):
        requests = problem.requests
        self.gpu, self._num_sets = _Gpu(problem), requests.num_sets
        self.fetch_s: list[float] = problem.fetch_s.tolist()
        self._compute_s: list[float] = problem.compute_s.tolist()
        set_of = requests.set_of_lookup
        following = next_use(requests.key)
        never = requests.num_sets
        self._next_set = np.append(set_of, never)[np.minimum(following, len(set_of))].tolist()
        self._start: list[int] = requests.start.tolist()
        self._key: list[int] = requests.key.tolist()
        self._set: list[int] = set_of.tolist()
        self._asked = 0  # lookups before this one are on the GPU, or on their way
        self._arrived = [0.0] * requests.num_sets
        self.ready_s = [0.0] * requests.num_sets
        self._running, self._done = -1, 0  # the set that runs (or ran last), and how many have ended
        self.end_s = problem.lead_s

    def next_missing(self) -> tuple[int, int] | None:
        """The next expert that is not there, and its set."""
        while self._asked < len(self._key):
            key, number = self._key[self._asked], self._set[self._asked]
            if not self.gpu.here[key]:
                return key, number
            self._asked += 1
        return None

    def waits_for(self, number: int) -> bool:
        """Whether the GPU waits for this set's experts."""
        return number == self._done and self._running < number

    def arrives(self, number: int, now: float) -> None:
        """An expert of a set comes at ``now``."""
        self._arrived[number] = max(self._arrived[number], now)

    def catch_up(self, now: float) -> None:
        """Start and end sets up to ``now``. A set starts only when everything of it was asked for and has come."""
        while self._done < self._num_sets:
            number = self._done
            if self._running < number:
                ready_s = max(self.end_s, self._arrived[number])
                if self._asked < self._start[number + 1] or ready_s > now:
                    return
                self.ready_s[number] = ready_s
                self._running = number
                self.end_s = ready_s + self._compute_s[number]
            if self.end_s > now:
                return
            self._done += 1
            for place in range(self._start[number], self._start[number + 1]):
                if self.gpu.here[self._key[place]]:
                    self.gpu.needed(self._key[place], self._next_set[place])

    def next_end_s(self, now: float) -> float:
        """When the running set ends, or the next one does."""
        number = self._done
        if self._running < number:
            return max(self.end_s, self._arrived[number]) + self._compute_s[number]
        return max(self.end_s, now)
