"""Nested: an expert is stored as bit-planes; a token's width needs the planes up to it, which all tokens share.

D2MoE (Wang et al., arXiv 2504.15299): Matryoshka weights, a base of the lowest width and planes that add to it, and a
learned router that chooses a width for each token and expert. Here each use of an expert draws its width with the
probabilities ``shares`` (the paper's expert capacities; which token gets which width is its router's, and is not
simulated). Planes of an expert are read lowest first; ``hottest`` asks, among each expert's next plane, first for that
on which most tokens of the step wait (HEBF), ``expert`` goes through expert after expert. A token is computed when its
plane is there. Bits beyond the base add no scales; scales are FP16 for each 128 weights (assumed).

Lookups, hits and sizes of such a run are those of planes. Caching must let higher planes leave first: ``d2moe``, or
``lru``, which is told of the higher planes first.
"""

from typing import Literal

from pydantic import Field, model_validator

from moesim.policies.api import PolicyParams
from moesim.policies.precision import Planes


class Params(PolicyParams):
    """Widths, how often each is chosen, and the order of reads."""

    bits: list[int] = Field([2, 3, 4], min_length=1, max_length=8, description="widths, ascending; the paper's V1")
    shares: list[float] = Field([0.3, 0.4, 0.3], description="of uses in each width; the paper's capacities of V1")
    order: Literal["hottest", "expert"] = Field("hottest", description="which plane is read first")

    @model_validator(mode="after")
    def _fit(self):
        """Widths ascend, and each has a share."""
        if any(bits < 1 or bits > 16 for bits in self.bits) or sorted(set(self.bits)) != self.bits:
            raise ValueError("bits must ascend from 1 to 16 at most")
        if len(self.shares) != len(self.bits) or any(share < 0 for share in self.shares):
            raise ValueError("shares must have one number, not negative, for each width")
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError("shares must sum to 1")
        return self


def planes(params: Params) -> Planes:
    """As given."""
    return Planes(tuple(params.bits), tuple(params.shares), params.order == "hottest")
