"""What no caching or prefetch policy could beat, as far as it is proven in passing."""

from __future__ import annotations

import numpy as np

from moesim.engine import Figures
from moesim.optimal.answer import Stopwatch
from moesim.optimal.caching.fewest import fewest
from moesim.optimal.prefetch.phases import phased_bound_s
from moesim.optimal.prefetch.problem import relaxed, relaxed_flash
from moesim.policies.api import FETCH, STREAM
from moesim.results.result import Bound
from moesim.setup import Setup

#: Phases of the bound on waiting: enough to see where one link takes over from another, and done in a moment.
CUTS = 8
MANY_LOOKUPS = 100_000


def bounds(setup: Setup, outcome: Figures, gpu_s: float, output_tokens: int, duration_s: float) -> list[Bound]:
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
    found += [_fewest_fetches(setup, outcome), _least_stall(setup, outcome)]
    return found


def _fewest_fetches(setup: Setup, outcome: Figures) -> Bound:
    """The fewest that any policy needs; with experts of mixed sizes, as if all were as small as the smallest."""
    problem = relaxed(setup)
    fetches = int(fewest(problem.requests, problem.slots, problem.model, warm=problem.warm).sum())
    same_size = bool((setup.sizes == setup.sizes[0]).all())
    is_reached = same_size and problem.model == "together" and not problem.warm
    start = "with anything there at the start" if problem.warm else "from a cold start"
    return Bound(
        name="fewest fetches (Belady MIN)",
        meaning=f"experts brought to a GPU cache of this size {start}, warm-up included",
        status="optimal" if is_reached else "bound only",
        value=float(fetches),
        unit="fetches",
        ours=float(outcome.moves["flash" if setup.unified else "pcie"].is_last.sum()),
    )


def _least_stall(setup: Setup, outcome: Figures) -> Bound:
    """Fewest fetches is not least time: these are the seconds that links need beyond what the GPU computes."""
    problem, on_flash = relaxed(setup), relaxed_flash(setup)
    cuts = CUTS if len(setup.visits.lookup_key) <= MANY_LOOKUPS else 1
    least_s = phased_bound_s([problem] if on_flash is None else [problem, on_flash], Stopwatch(), cuts)
    return Bound(
        name="least waiting",
        meaning="with perfect caching and prefetching, warm-up included; `moesim optimum` sharpens it",
        status="bound only",
        value=least_s - problem.busy_s,
        unit="s of stall",
        ours=float(outcome.step_end_s[-1]) - problem.busy_s,
    )
