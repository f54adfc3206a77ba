"""By arrival: requests decode together in the order in which they came, ``batch`` at a time.

With one batch in flight (``pool: 1``) this is plain continuous batching. More of them take turns, which is what
regrouping has to be compared with: as many requests hold their KV cache.
"""

from pydantic import Field

from moesim.policies.api import PolicyParams


class Params(PolicyParams):
    """How many run at once."""

    pool: int = Field(1, ge=1, le=16, description="batches of requests that are in flight and take turns")


def group(params: Params, paths, batch):
    """In order."""
    return [list(range(first, min(first + batch, len(paths)))) for first in range(0, len(paths), batch)]
