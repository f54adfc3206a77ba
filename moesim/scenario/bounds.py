"""What no caching or prefetch policy could beat, as far as it is proven in passing."""

from __future__ import annotations

import numpy as np

from moesim.engine import Outcome
from moesim.policies import api
from moesim.policies.api import FETCH, STREAM
from moesim.replay import count
from moesim.results.result import Bound
from moesim.setup import Setup


def bounds(setup: Setup, outcome: Outcome, gpu_s: float, output_tokens: int, duration_s: float) -> list[Bound]:
    """The bounds of a run; none where lookups were not computed on the GPU in full, which neither covers.

    Args:
        gpu_s: what the GPU computed, counted steps only.
        output_tokens, duration_s: of the counted steps.
    """
    if not np.isin(outcome.action, (FETCH, STREAM)).all():
        return []
    found = []
    if output_tokens:
        found.append(
            Bound(
                name="every expert on the GPU",
                meaning="the GPU's own work on these tokens, no waiting at all",
                status="bound only",
                value=output_tokens / gpu_s,
                unit="output tokens/s",
                ours=output_tokens / duration_s,
            )
        )
    if fewest_is_proven(setup):
        fewest = count(
            setup.visits, setup.sizes, api.load("caching", "belady"), setup.gpu.capacity_bytes, rule=setup.rule
        )
        found.append(
            Bound(
                name="fewest fetches (Belady MIN)",
                meaning="experts brought to a GPU cache of this size from a cold start, warm-up included",
                status="optimal",
                value=float((fewest.lookups - fewest.hits).sum()),
                unit="fetches",
                ours=float(len(outcome.transfers["flash" if setup.unified else "pcie"])),
            )
        )
    return found


def fewest_is_proven(setup: Setup) -> bool:
    """Whether MIN counts the fewest fetches that any policy needs here.

    It does for experts of one size that are kept when they have been fetched, a cold start, and visits that fit into
    the cache (a larger one runs in waves, in which MIN has no say). Prefetching and a split by layers can only need
    more.
    """
    visits = setup.visits
    same_size = bool((setup.sizes == setup.sizes[0]).all())
    largest_visit = int(np.diff(visits.lookup_start).max()) * int(setup.sizes[0])
    starts_cold = getattr(setup.gpu.policy.module, "preload", None) is None
    keeps_all = STREAM not in setup.on_miss.actions
    return same_size and starts_cold and keeps_all and largest_visit <= setup.gpu.capacity_bytes
