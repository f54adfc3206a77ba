"""A setup's figures by whichever engine has them first: they are the same to the last bit."""

from __future__ import annotations

from contextlib import suppress

from moesim.engine.offload import simulate
from moesim.engine.outcome import Outcome
from moesim.errors import CompileError
from moesim.replay.timed import Timed, is_timed_replay_at_hand, not_covered, replay_timed
from moesim.setup import Setup

#: What a run leaves behind, from either engine.
Figures = Outcome | Timed

#: SimPy takes some 20 to 60 us for a lookup. Loading compiled kernels takes about as long as so many lookups, and
#: compiling them, once for each pair of policies, as long as so many.
LOAD_FROM, COMPILE_FROM = 50_000, 400_000


def figures_of(setup: Setup) -> Figures:
    """Run a setup until its last step has ended, on the compiled replay where that covers it and is worth loading."""
    if _is_worth_it(setup):
        with suppress(CompileError):  # a policy from outside, that only the interpreter can run
            return replay_timed(setup, record_transfers=True)
    return simulate(setup)


def recorded(setup: Setup, figures: Figures, steps: int) -> Outcome:
    """The engine's record of the first steps: what it left behind, or else those steps run once more.

    They are run with one step more, so that a prefetch that is under way at their end is there as well.
    """
    return figures if isinstance(figures, Outcome) else simulate(setup, steps + 1)


def _is_worth_it(setup: Setup) -> bool:
    lookups = len(setup.visits.lookup_key)
    if lookups < LOAD_FROM or not_covered(setup):
        return False
    with suppress(CompileError):
        return lookups >= COMPILE_FROM or is_timed_replay_at_hand(setup)
    return False
