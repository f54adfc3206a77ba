"""Uniform: every expert in the same precision, by default the scenario's own.

With another one (MoQE's uniform low bits, Kim et al., arXiv 2310.02410) the output changes against the scenario's.
"""

from pydantic import Field

from moesim.policies.api import PolicyParams
from moesim.policies.precision import StoredExperts


class Params(PolicyParams):
    """Which one."""

    precision: str | None = Field(None, description="of every expert; default: the scenario's precision.experts")


def assign(params: Params, stored: StoredExperts):
    """The same name for all."""
    return [params.precision or stored.precision] * stored.num_keys
