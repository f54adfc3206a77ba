"""Which experts a batch chooses when only the distribution is known: what the measured rank of a MoE layer gets.

- ``balanced``: round robin. Every expert gets ``floor(T k / E)`` pairs, the first ones what is left; with fewer pairs
  than experts they lie evenly apart. The first rank is taken.
- ``power_law_a``: each expert's share is drawn from the density ``x^-a`` between ``low`` and ``high``, shares become
  whole numbers of pairs that sum to T k, no expert more than T (a token's experts are distinct), and the rank with the
  most pairs is taken. ``low, high = 1, 0.8 T``; with no more pairs than experts ``0.01, 2``. The mean over
  :data:`DRAWS` seeded draws.

The bounds reproduce the published means of such draws (``tests/costs/test_workload.py``).
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

DRAWS = 8
_POWER_LAW = re.compile(r"power_law_(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Share:
    """What one rank gets: (token, expert) pairs, distinct experts, and pairs of its fullest expert."""

    pairs: float
    distinct: float
    fullest: float


def known(distribution: str) -> bool:
    """Whether a share can be told from the distribution's name."""
    return distribution == "balanced" or _POWER_LAW.match(distribution) is not None


@cache
def rank_share(distribution: str, tokens: int, experts: int, topk: int, ranks: int) -> Share:
    """What the measured rank gets: any rank where balanced, the most loaded where drawn (means of seeded draws).

    Raises:
        ValueError: the distribution is unknown.
    """
    if distribution == "balanced":
        return balanced(tokens, experts, topk, ranks)
    match = _POWER_LAW.match(distribution)
    if match is None:
        raise ValueError(f"unknown distribution {distribution!r}; known: balanced, power_law_A")
    seed = zlib.crc32(f"{distribution}/{tokens}/{experts}/{topk}/{ranks}".encode())
    random = np.random.Generator(np.random.PCG64(seed))
    return _most_loaded(power_law_loads(float(match[1]), tokens, experts, topk, random, DRAWS), ranks)


def balanced(tokens: int, experts: int, topk: int, ranks: int) -> Share:
    """Round robin: what the first rank gets (see the module)."""
    rounds, rest = divmod(tokens * topk, experts)
    local = max(experts // ranks, 1)
    extra = min(rest, local) if rounds else math.ceil(rest / ranks)
    pairs = rounds * local + extra
    return Share(float(pairs), float(min(pairs, local)), float(rounds + (extra > 0)))


def power_law_loads(
    exponent: float, tokens: int, experts: int, topk: int, random: np.random.Generator, draws: int = 1
) -> Ints:
    """Pairs of each expert. [draws, experts]"""
    pairs = tokens * topk
    low, high = (1.0, max(0.8 * tokens, 1.0)) if pairs > experts else (0.01, 2.0)
    uniform = random.random((draws, experts))
    if exponent == 1.0:
        shares = low * (high / low) ** uniform
    else:
        power = 1.0 - exponent
        shares = ((high**power - low**power) * uniform + low**power) ** (1 / power)
    wanted = shares / shares.sum(axis=1, keepdims=True) * pairs
    return np.stack([_whole(row, pairs, tokens) for row in wanted])


def _whole(wanted: NDArray[np.float64], pairs: int, most: int) -> Ints:
    """Rounded to whole numbers that sum to ``pairs``, none above ``most``.

    What rounding leaves over goes to experts evenly apart, one pair each; what it added comes off the fullest.
    """
    loads = np.minimum(np.round(wanted), most).astype(np.int64)
    while missing := pairs - int(loads.sum()):
        if missing > 0:
            able = np.flatnonzero(loads < most)
            count = min(missing, len(able))
            rounds = max(1, min(missing // len(able), int(most - loads[able].max())))  # so often all able get one each
            loads[able[np.arange(count) * len(able) // count]] += rounds
        else:
            fullest = np.argsort(-loads, kind="stable")[: min(-missing, int((loads > 0).sum()))]
            loads[fullest] -= 1
    return loads


def _most_loaded(loads: Ints, ranks: int) -> Share:
    """Means over draws of the rank with the most pairs; each rank holds a block of experts. [draws, experts]"""
    blocks = loads.reshape(len(loads), ranks, -1)
    rank = np.argmax(blocks.sum(axis=2), axis=1)
    chosen = blocks[np.arange(len(loads)), rank]
    distinct = np.maximum((chosen > 0).sum(axis=1), 1)
    return Share(float(chosen.sum(axis=1).mean()), float(distinct.mean()), float(chosen.max(axis=1).mean()))
