"""Random numbers, one stream for each subsystem: a new draw in one does not shift another."""

from __future__ import annotations

import zlib

import numpy as np


def random_stream(seed: int, subsystem: str) -> np.random.Generator:
    """The random numbers of one subsystem."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(subsystem.encode())]))
