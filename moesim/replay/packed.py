"""Caches packed into the flat arrays that kernels work on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim.errors import PolicyError
from moesim.policies.api import CacheContext, Policy
from moesim.replay.kernels.caches import (
    BOOKS,
    CAPACITY,
    COMMON,
    F_START,
    F_STOP,
    FAULT,
    I_START,
    I_STOP,
    KEPT,
    KEY_START,
    KEY_STOP,
    KEYS_PER_CACHE,
    USED,
    Caches,
)


def pack(policy: Policy, contexts: list[CacheContext]) -> Caches:
    """Caches under one policy with what it preloads, one after the other."""
    states = [_state(policy, context) for context in contexts]
    held = [np.where(np.isin(np.arange(c.num_keys), policy.preload(c)), KEPT, 0) for c in contexts]
    books = np.zeros((len(contexts), BOOKS), dtype=np.int64)
    columns = {
        CAPACITY: [context.capacity_bytes for context in contexts],
        USED: [int(context.sizes[kept == KEPT].sum()) for context, kept in zip(contexts, held, strict=True)],
    }
    for column, values in columns.items():
        books[:, column] = values
    lengths = [[len(state_i) for state_i, _ in states], [len(state_f) for _, state_f in states]]
    lengths.append([context.num_keys for context in contexts])
    borders = ((I_START, I_STOP), (F_START, F_STOP), (KEY_START, KEY_STOP))
    for (start, stop), length in zip(borders, lengths, strict=True):
        books[:, stop] = np.cumsum(length)
        books[:, start] = books[:, stop] - length
    keys = int(books[-1, KEY_STOP])
    common = np.zeros(COMMON, dtype=np.int64)
    common[KEYS_PER_CACHE] = contexts[0].num_keys
    return Caches(
        state_i=np.concatenate([state_i for state_i, _ in states]),
        state_f=np.concatenate([state_f for _, state_f in states]),
        sizes=np.concatenate([context.sizes for context in contexts]).astype(np.int64),
        held=np.concatenate(held).astype(np.uint8),
        locked=np.concatenate([np.isin(np.arange(c.num_keys), c.pinned) for c in contexts]).astype(np.int8),
        passing=np.zeros(keys, dtype=np.int64),
        books=books,
        common=common,
    )


def check_fault(policy: Policy, caches: Caches) -> None:
    """Raise what a kernel found.

    Raises:
        PolicyError: ``victim`` broke its contract.
    """
    if caches.common[FAULT]:
        message = "victim() named nobody though room is needed, or an expert that it does not keep"
        raise PolicyError.of(f"policy {policy.name!r} (caching)", message)


def _state(policy: Policy, context: CacheContext) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The policy's state after its preloads, which run interpreted, on lists."""
    module = policy.module
    state_i, state_f = (array.tolist() for array in module.initial_state(policy.params, context))
    for key in policy.preload(context):
        module.on_insert(state_i, state_f, key, 0, 0.0)
    return np.array(state_i, dtype=np.int64), np.array(state_f, dtype=np.float64)
