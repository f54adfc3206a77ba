"""LRU at all sizes at once: how many other keys were used since a key's last use (its stack distance).

A key is in an LRU cache of c experts exactly if its distance is below c (Mattson et al. 1970). Uses are numbered;
``mark`` has a bit for the last use of every key, so a distance is the number of bits after a key's own. Counts of bits
by word (64 uses), by group (8 words), by block (8 groups) and by section (8 blocks) make that a few additions. When the
numbers run out, the keys are numbered anew in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Where the counts of each level start in ``counts``: words, groups, blocks, sections, for at most 2^18 uses.
WORD_BITS, FAN = 6, 3


def use_distances(last: Any, mark: Any, counts: Any, clock: Any, keys: Any, histogram: Any) -> None:
    """Every activation is a lookup of its own (rule ``sequential``)."""
    raise NotImplementedError


def lookup_distances() -> None:
    raise NotImplementedError
