"""EdgeMoE: experts ranked by how much accuracy falls when one alone goes to the lower width; the least important K do.

Yi et al., arXiv 2308.14352: importance is the loss when that expert is INT2 and all others INT4; K grows until the
tolerable loss is reached. ``losses`` is a CSV file with the columns ``layer``, ``expert`` and ``loss``; K is then the
most experts whose losses sum to at most ``tolerable`` (losses are taken as additive; the paper evaluates each K).
Without it, experts are ranked by their activations in the training split (a proxy: what is rarely used matters
little), and K is ``share`` of all.
"""

import numpy as np
from pydantic import Field

from moesim.errors import PolicyError
from moesim.policies.api import PolicyParams
from moesim.policies.precision import StoredExperts
from moesim.policies.tables import expert_column


class Params(PolicyParams):
    """The two widths, and how far to go."""

    low: str = Field("int2", description="precision of the less important")
    high: str = Field("int4", description="precision of the others")
    share: float = Field(0.5, ge=0, le=1, description="of all experts that go to the lower width, without `losses`")
    losses: str | None = Field(None, description="CSV with layer, expert, loss; relative to the scenario's file")
    tolerable: float = Field(0.02, ge=0, description="sum of losses that is tolerated, with `losses`")


def assign(params: Params, stored: StoredExperts):
    """Rank, and cut."""
    if params.losses is not None:
        losses = np.zeros(stored.num_keys)
        table = expert_column(stored.folder / params.losses, "loss", stored.num_layers, stored.num_experts, float)
        losses[list(table)] = list(table.values())
        order = np.argsort(losses, kind="stable")
        count = int(np.searchsorted(np.cumsum(losses[order]), params.tolerable, side="right"))
    else:
        if stored.uses is None:
            raise PolicyError.of(
                "", "'edgemoe' ranks by a training split and none is named", "workload.train_fraction, or give losses"
            )
        order = np.argsort(stored.uses, kind="stable")
        count = round(params.share * stored.num_keys)
    names = np.full(stored.num_keys, params.high, dtype=object)
    names[order[:count]] = params.low
    return names.tolist()
