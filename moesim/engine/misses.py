"""What becomes of the experts of a visit: the on-miss policy is asked, and its answer checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from moesim.engine.host_memory import HostMemory
from moesim.errors import PolicyError
from moesim.policies.api import ABSENT, COMING, CPU, FETCH, HERE, LOW, SKIP, SUBSTITUTE, Asked
from moesim.setup import FULL, Setup
from moesim.setup import LOW as LOW_FORM

THERE = (HERE, COMING)


class Misses:
    """Asks the on-miss policy.

    Args:
        is_here: whether an expert is on the GPU in full, its transfer done.
    """

    def __init__(self, setup: Setup, host: HostMemory | None, is_here: Callable[[int], bool]):
        visits, times, module = setup.visits, setup.times, setup.on_miss.module
        self._setup, self._host, self._is_here = setup, host, is_here
        self._experts = visits.num_experts
        self._decide, self._plan = getattr(module, "decide", None), getattr(module, "plan", None)
        self._state: list[float] = module.initial_state(setup.on_miss.params).tolist()
        self._tokens: list[int] = visits.lookup_tokens.tolist()
        self._copy_s, self._read_s = times.copy_s.tolist(), times.read_s.tolist()
        self._cpu_s = times.cpu_s.tolist()
        self._gpu_s: list[float] = times.expert.total_s.tolist()
        if self._plan is not None:
            self._share, self._before = visits.gates.largest.tolist(), visits.gates.before.tolist()
            self._uses = [0] * visits.num_keys

    def choose(
        self, first: int, members: Sequence[int], there: Sequence[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """What becomes of a visit's lookups: actions, the order of demands, and the keys of substitutes.

        Args:
            first: the visit's first lookup.
            members: its keys.
            there: where each is (ABSENT, …).

        Raises:
            PolicyError: the policy broke its contract.
        """
        count = len(members)
        if self._plan is None:
            actions = [
                self._one(lookup, key) if place == ABSENT else FETCH
                for lookup, (key, place) in enumerate(zip(members, there, strict=True), first)
            ]
            return actions, list(range(count)), [-1] * count
        asked = self._asked(first, members, there)
        self._plan(self._state, asked)
        layer = members[0] // self._experts * self._experts if members else 0
        for key, tokens in zip(members, self._tokens[first : first + count], strict=True):
            self._uses[key] += tokens
        instead = [layer + expert for expert in asked.instead]
        self._check(asked)
        return asked.action, asked.order, instead

    def _one(self, lookup: int, key: int) -> int:
        assert self._decide is not None
        read_s = self._to_host_s(key, FULL)
        fetch_s, cpu_s = read_s + self._copy_s[key], read_s + self._cpu_s[lookup]
        return int(self._decide(self._state, self._tokens[lookup], fetch_s, cpu_s, self._gpu_s[lookup]))

    def _to_host_s(self, key: int, form: int) -> float:
        """Seconds to read it from flash, where it is not above."""
        if self._host is None or self._host.holds(key, form):
            return 0.0
        return self._read_s[key] if form == FULL else float(self._setup.forms[form].read_s[key])

    def _asked(self, first: int, members: Sequence[int], there: Sequence[int]) -> Asked:
        lookups = range(first, first + len(members))
        layer = members[0] // self._experts * self._experts if members else 0
        to_host = [self._to_host_s(key, FULL) for key in members]
        to_gpu = self._read_s if self._setup.unified else self._copy_s
        return Asked(
            there=list(there),
            expert=[key - layer for key in members],
            tokens=[self._tokens[lookup] for lookup in lookups],
            share=[self._share[lookup] for lookup in lookups],
            before=[self._before[lookup] for lookup in lookups],
            fetch_s=[read_s + to_gpu[key] for key, read_s in zip(members, to_host, strict=True)],
            low_s=[self._low_s(key) for key in members],
            cpu_s=[read_s + self._cpu_s[lookup] for lookup, read_s in zip(lookups, to_host, strict=True)],
            gpu_s=[self._gpu_s[lookup] for lookup in lookups],
            resident=[self._is_here(key) for key in range(layer, layer + self._experts)],
            uses=self._uses[layer : layer + self._experts],
            action=[FETCH] * len(members),
            order=list(range(len(members))),
            instead=[-1] * len(members),
        )

    def _low_s(self, key: int) -> float:
        low = self._setup.low
        if low is None:
            return np.inf
        to_gpu_s = low.read_s if self._setup.unified else low.copy_s
        return self._to_host_s(key, LOW_FORM) + float(to_gpu_s[key])

    def _check(self, asked: Asked) -> None:
        """Turn what is there into FETCH unless it is skipped, and refuse what can't be done."""
        policy = self._setup.on_miss
        for place, there in enumerate(asked.there):
            action = asked.action[place]
            if there in THERE and action != SKIP:
                asked.action[place] = FETCH
            elif action not in policy.actions:
                raise _broken(policy.name, f"chose {action}, which is not among its ACTIONS")
            elif action == LOW and self._setup.low is None:
                raise _broken(policy.name, "chose LOW, and there are no copies in low precision")
            elif action == SUBSTITUTE:
                stand_in = asked.instead[place]
                taken = stand_in in asked.expert or asked.instead.count(stand_in) > 1
                if stand_in < 0 or not asked.resident[stand_in] or taken:
                    raise _broken(policy.name, f"substitutes {stand_in}, which is not a free expert on the GPU")
            elif action == CPU and self._setup.unified:
                raise _broken(policy.name, "chose CPU, and GPU and CPU share one memory")


def _broken(name: str, what: str) -> PolicyError:
    error = PolicyError.of(f"policy {name!r} (on_miss)", what)
    assert isinstance(error, PolicyError)
    return error
