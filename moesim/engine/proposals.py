"""What a prefetch policy proposes at each visit, in the order in which it is to go out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.policies.api import Offered
from moesim.setup import FULL, LOW, Setup


class Proposal(NamedTuple):
    """An expert in a form, for a later visit."""

    key: int
    target: int
    form: int


class Proposals:
    """Hands out proposals; where the policy chooses among them, by what is where at that moment.

    Args:
        where: of an expert in full: ABSENT, HERE or COMING.
    """

    def __init__(self, setup: Setup, where: Callable[[int], int]):
        candidates = setup.candidates
        self._start: list[int] = candidates.start.tolist()
        self._key: list[int] = candidates.key.tolist()
        self._target: list[int] = candidates.target.tolist()
        self._low = candidates.low
        self._where = where
        self._policy = setup.prefetch
        self._choose = None if setup.prefetch is None else setup.prefetch.module.choose
        if self._choose is not None:
            tokens = candidates.tokens if candidates.tokens is not None else np.ones(len(candidates.key), np.int64)
            times, lookup_tokens = setup.times, setup.visits.lookup_tokens
            self._tokens: list[int] = tokens.tolist()
            self._fetch_s: list[float] = (times.read_s if setup.unified else times.copy_s).tolist()
            self._cpu_s: list[float] = _by_tokens(times.cpu_s, lookup_tokens, tokens).tolist()
            self._gpu_s: list[float] = _by_tokens(times.expert.total_s, lookup_tokens, tokens).tolist()

    def at(self, visit: int) -> Iterator[Proposal]:
        """A visit's proposals that go out, in order."""
        places = range(self._start[visit], self._start[visit + 1])
        for place in places if self._choose is None else self._chosen(visit, places):
            form = LOW if self._low is not None and self._low[place] else FULL
            yield Proposal(self._key[place], self._target[place], form)

    def _chosen(self, visit: int, places: range) -> list[int]:
        assert self._choose is not None
        assert self._policy is not None
        offered = Offered(
            ahead=[self._target[place] - visit for place in places],
            there=[self._where(self._key[place]) for place in places],
            tokens=[self._tokens[place] for place in places],
            fetch_s=[self._fetch_s[self._key[place]] for place in places],
            cpu_s=[self._cpu_s[place] for place in places],
            gpu_s=[self._gpu_s[place] for place in places],
            rank=list(range(len(places))),
        )
        self._choose(self._policy.params, offered)
        ranked = [(rank, place) for rank, place in zip(offered.rank, places, strict=True) if rank >= 0]
        return [place for _, place in sorted(ranked)]


def _by_tokens(
    seconds: NDArray[np.float64], of_tokens: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What so many tokens cost, from the workload's lookups with as many; between them by straight lines."""
    counts, place = np.unique(of_tokens, return_inverse=True)
    mean = np.bincount(place, weights=seconds) / np.bincount(place)
    return np.interp(wanted, counts, mean)
