"""The tokens that a figure is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.traces.trace import DECODE, PREFILL, Array, RoutingTrace

Phase = Literal["all", "prefill", "decode"]
#: Name of a phase -> the values of ``RoutingTrace.phase`` that it covers.
PHASES: Mapping[Phase, tuple[int, ...]] = {"all": (PREFILL, DECODE), "prefill": (PREFILL,), "decode": (DECODE,)}


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of a trace, in its order.

    Attributes:
        experts: [tokens, layers, top_k]; the largest value of its type = no expert.
        run: int64 [tokens], numbered from 0: tokens of one run follow each other without a gap in one request.
        row: int64 [tokens], the row of the trace.
        num_experts: routed experts per layer.
    """

    experts: Array
    run: NDArray[np.int64]
    row: NDArray[np.int64]
    num_experts: int

    @property
    def num_tokens(self) -> int:
        """Rows."""
        return len(self.run)

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.experts.shape[1])

    @property
    def top_k(self) -> int:
        """Experts per token and layer, where none is missing."""
        return int(self.experts.shape[2])

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Where there is an expert. [tokens, layers, top_k]"""
        return np.asarray(self.experts != np.iinfo(self.experts.dtype).max)

    @cached_property
    def recorded(self) -> NDArray[np.bool_]:
        """Where a token has any expert. [tokens, layers]"""
        return np.asarray(self.present.any(axis=-1))

    @cached_property
    def run_starts(self) -> NDArray[np.int64]:
        """First token of each run, and the number of tokens at the end. [runs + 1]"""
        return np.searchsorted(self.run, np.arange(self.run[-1] + 2 if len(self.run) else 1))

    def ids(self, layer: int) -> NDArray[np.int64]:
        """Expert ids in a layer; ``num_experts`` where there is none. [tokens, top_k]"""
        return np.where(self.present[:, layer], self.experts[:, layer], self.num_experts).astype(np.int64)

    def uses(self, layer: int) -> NDArray[np.bool_]:
        """Which experts each token uses in a layer. [tokens, num_experts]"""
        used = np.zeros((self.num_tokens, self.num_experts + 1), bool)
        np.put_along_axis(used, self.ids(layer), True, axis=1)
        return used[:, :-1]

    def subset(self, wanted: NDArray[np.bool_]) -> TokenRows:
        """Some of the tokens; those of one run that no longer touch fall into several runs. ``wanted``: [tokens]"""
        kept = np.flatnonzero(wanted)
        apart = np.ones(len(kept), bool)
        apart[1:] = (np.diff(self.run[kept]) != 0) | (np.diff(kept) != 1)
        return TokenRows(self.experts[kept], np.cumsum(apart) - 1, self.row[kept], self.num_experts)


def token_rows(trace: RoutingTrace, phase: Phase = "all", max_tokens: int | None = None) -> TokenRows:
    """The tokens of one phase; with ``max_tokens``, of the :func:`first_requests` only."""
    rows = np.arange(trace.num_tokens)
    if max_tokens is not None:
        rows = rows[: trace.rows_of(first_requests(trace, max_tokens)[-1]).stop]
    rows = rows[np.isin(trace.phase[rows], PHASES[phase])]
    request, position = trace.request[rows], trace.position[rows].astype(np.int64)
    apart = np.ones(len(rows), bool)
    apart[1:] = (np.diff(request) != 0) | (np.diff(position) != 1)
    return TokenRows(np.asarray(trace.experts[rows]), np.cumsum(apart) - 1, rows, trace.num_experts)


def first_requests(trace: RoutingTrace, max_tokens: int) -> list[int]:
    """The first requests that together have at most ``max_tokens`` rows, but at least one."""
    ids = [int(request) for request in trace.request_ids]
    stops = np.array([trace.rows_of(request).stop for request in ids])
    return ids[: max(1, int((stops <= max_tokens).sum()))]
