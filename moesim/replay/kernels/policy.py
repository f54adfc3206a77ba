"""Where a caching policy's functions go: the compiler puts the chosen policy's in the place of these.

What is optional in the contract does here what its absence means.
"""

from __future__ import annotations

from typing import Any


def on_hit(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """The policy's."""
    raise NotImplementedError


def on_insert(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """The policy's."""
    raise NotImplementedError


def on_evict(state_i: Any, state_f: Any, key: int) -> None:
    """The policy's."""
    raise NotImplementedError


def victim(state_i: Any, state_f: Any, locked: Any) -> int:
    """The policy's."""
    raise NotImplementedError


def admit(state_i: Any, state_f: Any, key: int, now: int, note: float) -> bool:
    """Everything is kept."""
    return True


def on_visit(state_i: Any, state_f: Any, layer: int, starts_request: bool) -> None:
    """Nothing to be told."""


def hears_visits() -> bool:
    """Whether the policy has ``on_visit``."""
    return False


def before_insert(state_i: Any, state_f: Any, key: int) -> None:
    """Nothing to be told."""


def on_bypass(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """Nothing to be told."""


def host_on_hit(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """The policy of host memory, where there is one: this and what follows."""


def host_on_insert(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """See ``on_insert``."""


def host_on_evict(state_i: Any, state_f: Any, key: int) -> None:
    """See ``on_evict``."""


def host_victim(state_i: Any, state_f: Any, locked: Any) -> int:
    """See ``victim``."""
    return -1


def host_admit(state_i: Any, state_f: Any, key: int, now: int, note: float) -> bool:
    """Everything is kept."""
    return True


def host_on_visit(state_i: Any, state_f: Any, layer: int, starts_request: bool) -> None:
    """Nothing to be told."""


def host_before_insert(state_i: Any, state_f: Any, key: int) -> None:
    """Nothing to be told."""


def host_on_bypass(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """Nothing to be told."""


def has_host() -> bool:
    """Whether the GPU's experts come through host memory, from a drive. A constant: what is not there costs nothing."""
    return False


def may_use_cpu() -> bool:
    """Whether a missing expert may be computed on the CPU."""
    return False


def decide(state_f: Any, tokens: int, fetch_s: float, cpu_s: float, gpu_s: float) -> int:
    """The on-miss policy's: fetch."""
    return 0


def granted() -> bool:
    """What takes the place of ``has_host`` or ``may_use_cpu`` where it is so."""
    return True
