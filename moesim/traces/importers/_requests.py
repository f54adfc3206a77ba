"""Where requests begin, for formats that don't say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, NonNegativeInt

from moesim.errors import TraceError
from moesim.traces.array_files import Array
from moesim.traces.trace import DECODE, PREFILL


def _split(value: Any) -> Any:
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


#: Whole numbers, as a sequence or as text: ``"28,40"``.
Numbers = Annotated[tuple[NonNegativeInt, ...], BeforeValidator(_split)]


def request_columns(
    num_tokens: int, prompt_tokens: Sequence[int], request_tokens: Sequence[int] | None, place: str
) -> tuple[Array, Array, Array]:
    """Request, position and phase [tokens] of requests that stand one after the other.

    Args:
        num_tokens: tokens in the file.
        prompt_tokens: how many tokens of each request are its prompt.
        request_tokens: how many tokens each request has; None: one request has them all.
        place: the file, for errors.

    Raises:
        TraceError: the numbers don't fit each other or the file.
    """
    tokens = [num_tokens] if request_tokens is None else list(request_tokens)
    if len(prompt_tokens) != len(tokens):
        told = f"{len(prompt_tokens)} prompt lengths for {len(tokens)} requests"
        borders = "give request_tokens, the length of each request"
        raise TraceError.of(place, told, borders if request_tokens is None else "give one for each request")
    if sum(tokens) != num_tokens or not all(tokens):
        told = f"holds {num_tokens} tokens, the requests have {sum(tokens)} together"
        raise TraceError.of(place, told, "request_tokens counts prompt and output of each request, at least 1")
    for index, (prompt, length) in enumerate(zip(prompt_tokens, tokens, strict=True)):
        if prompt > length:
            told = f"request {index} has {length} tokens, so no prompt of {prompt}"
            raise TraceError.of(place, told, "is prompt_tokens right?")
    position = np.concatenate([np.arange(count) for count in tokens])
    phase = np.where(position < np.repeat(prompt_tokens, tokens), PREFILL, DECODE)
    return np.repeat(np.arange(len(tokens)), tokens), position, phase
