"""Plan: each expert in the precision that a table gives it; what the table does not name keeps the default.

The table is a CSV file with the columns ``layer`` (MoE layers from 0), ``expert`` and ``precision``: the form in which
bit allocations made elsewhere come in, as those of Mixture Compressor (Huang et al., arXiv 2410.06270), which solves an
integer program for them.
"""

from pydantic import Field

from moesim.errors import PolicyError
from moesim.policies.api import PolicyParams
from moesim.policies.precision import StoredExperts
from moesim.policies.tables import expert_column


class Params(PolicyParams):
    """Where the table is, and the default."""

    file: str | None = Field(None, description="CSV with layer, expert, precision; relative to the scenario's file")
    precision: str | None = Field(None, description="of what is not named; default: the scenario's precision.experts")


def assign(params: Params, stored: StoredExperts):
    """From the table."""
    if params.file is None:
        raise PolicyError.of("file", "'plan' needs a table", "file: plan.csv with the columns layer, expert, precision")
    names = [params.precision or stored.precision] * stored.num_keys
    table = stored.folder / params.file
    for key, name in expert_column(table, "precision", stored.num_layers, stored.num_experts).items():
        names[key] = name
    return names
