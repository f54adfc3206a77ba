"""What attention of recorded steps sees: from the positions of their tokens, request by request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs.attention import DECODE_SUMS, PREFILL_SUMS, decode_load, prefill_load
from moesim.costs.fitted import Floats
from moesim.costs.step import Contexts
from moesim.traces.steps import Steps

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Turns:
    """Each request of each step once. [turns]

    Attributes:
        step: of the turn.
        queries: the request's tokens in this step.
        past: its positions that are in the KV cache before.
    """

    step: Ints
    queries: Floats
    past: Floats


def turns_of(steps: Steps, request: ArrayLike, position: ArrayLike) -> Turns:
    """The turns of all steps.

    Args:
        request, position: of the trace's rows. [rows]
    """
    step = np.repeat(np.arange(steps.num_steps), steps.tokens)
    pair = np.stack([step, np.asarray(request)[steps.row].astype(np.int64)])
    turn, of_row = np.unique(pair, axis=1, return_inverse=True)
    of_row = of_row.ravel()
    first = np.full(turn.shape[1], np.iinfo(np.int64).max)
    np.minimum.at(first, of_row, np.asarray(position)[steps.row].astype(np.int64))
    queries = np.bincount(of_row, minlength=turn.shape[1]).astype(np.float64)
    return Turns(turn[0], queries, first.astype(np.float64))


def contexts_of(turns: Turns, num_steps: int, windows: Iterable[float]) -> Contexts:
    """One query after a past decodes; everything else prefills. Loads are of whole steps. [steps]"""
    decodes = (turns.queries == 1) & (turns.past > 0)
    seen = np.where(decodes, turns.past + 1, 0.0)
    new = np.where(decodes, 0.0, turns.queries)
    decode, prefill = {}, {}
    for window in windows:
        ones = decode_load(seen[:, None], window)
        decode[window] = _of_steps(ones, DECODE_SUMS, turns.step, num_steps)
        ones = prefill_load(new[:, None], turns.past[:, None], window)
        prefill[window] = _of_steps(ones, PREFILL_SUMS, turns.step, num_steps)
    return Contexts.of(decode, prefill)


def _of_steps(load: dict[str, Floats], sums: tuple[str, ...], step: Ints, num_steps: int) -> dict[str, Floats]:
    """Loads of single requests, put together by step."""
    together = {name: np.asarray(np.bincount(step, load[name], num_steps), dtype=np.float64) for name in sums}
    longest = np.zeros(num_steps)
    np.maximum.at(longest, step, load["longest"])
    of_all = together["keys" if "keys" in together else "queries"]
    return {**together, "longest": longest, "seq": of_all / np.maximum(together["batch"], 1)}
