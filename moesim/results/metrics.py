"""The definitions behind a result's numbers, on plain arrays.

A request's first output token comes from its prefill, each later one from a decode step; TPOT is (latency - TTFT) over
the output tokens after the first, per request; ITL is every single gap between a request's tokens. Without prefill in
the trace there is no TTFT (null), and TPOT is latency over output tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.results.result import Distribution, RequestRow, TimeShare


def distribution(values: ArrayLike) -> Distribution | None:
    """Summary of a sample; None where it is empty."""
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size:
        return None
    p50, p90, p99 = (float(value) for value in np.percentile(sample, [50, 90, 99]))
    return Distribution(
        n=int(sample.size),
        mean=float(sample.mean()),
        p50=p50,
        p90=p90,
        p99=p99,
        min=float(sample.min()),
        max=float(sample.max()),
    )


def time_shares(seconds: Mapping[str, float]) -> list[TimeShare]:
    """Parts of a whole, those without time left out."""
    whole = sum(seconds.values())
    return [TimeShare(name=name, seconds=part, share=part / whole) for name, part in seconds.items() if part > 0]


def request_row(
    request: int, arrival_s: float, prefill_ends: Sequence[float], prompt_tokens: int, decode_ends: Sequence[float]
) -> RequestRow:
    """A request from the ends of its steps.

    Args:
        prefill_ends: of its prefill steps; empty where the trace has none.
        decode_ends: of its decode steps, one output token each.
    """
    first_token = prefill_ends[-1] if prefill_ends else None
    end = decode_ends[-1] if decode_ends else prefill_ends[-1]
    start = arrival_s if first_token is None else first_token
    return RequestRow(
        request=request,
        prompt_tokens=prompt_tokens,
        output_tokens=len(decode_ends) + (first_token is not None),
        arrival_s=arrival_s,
        ttft_s=None if first_token is None else first_token - arrival_s,
        tpot_s=(end - start) / len(decode_ends) if decode_ends else None,
        latency_s=end - arrival_s,
    )


def inter_token_s(first_token_s: float | None, decode_ends: Sequence[float]) -> NDArray[np.float64]:
    """Gaps between a request's successive output tokens."""
    ends = [*([] if first_token_s is None else [first_token_s]), *decode_ends]
    return np.diff(ends)
