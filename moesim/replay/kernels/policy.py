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


def before_insert(state_i: Any, state_f: Any, key: int) -> None:
    """Nothing to be told."""


def on_bypass(state_i: Any, state_f: Any, key: int, now: int, note: float) -> None:
    """Nothing to be told."""
