"""One arrow from a parallel scenario to its result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moesim.engine.expert_parallel import SLOWER, ParallelOutcome, simulate_parallel
from moesim.scenario.load import ScenarioFile
from moesim.scenario.parallel.build import BuiltParallel, build_parallel
from moesim.scenario.parallel.parts import ParallelParts
from moesim.scenario.parallel.variants import changed
from moesim.setup.parallel import ParallelSetup

Floats = NDArray[np.float64]
BUBBLE = "pipeline bubble"
#: Chunks that are tried for the best pipelining degree.
DEGREES = (1, 2, 4, 8, 16)
MOVES = "moving weights"


@dataclass(frozen=True)
class ParallelRun:
    """A run: what went in, what each stage left behind, and the time of the steps.

    Attributes:
        step_s: [steps]
        busy_s: computing, mean over GPUs, all steps; with ``waits_s`` it adds up to the sum of ``step_s``.
        waits_s: waiting, by cause, mean over GPUs.
        tried: chunks -> mean step, where the best pipelining degree was asked for.
    """

    built: BuiltParallel
    outcomes: tuple[ParallelOutcome, ...]
    step_s: Floats
    busy_s: float
    waits_s: dict[str, float]
    tried: dict[int, float] = field(default_factory=dict)


def run_parallel(file: ScenarioFile, known: ParallelParts | None = None) -> ParallelRun:
    """Build and simulate a parallel scenario.

    Args:
        known: parts of a scenario with the same model, trace and hardware.

    Raises:
        ScenarioError: with every fault at once.
    """
    assert file.scenario.parallel is not None
    if file.scenario.parallel.overlap.pipeline == "best":
        return _fastest(file, known)
    built = build_parallel(file, known)
    return ran(built, tuple(stage.setup for stage in built.stages))


def _fastest(file: ScenarioFile, known: ParallelParts | None) -> ParallelRun:
    """The run with the pipelining degree that makes the shortest steps."""
    parallel = file.scenario.parallel
    assert parallel is not None
    tokens = parallel.batch.tokens_per_gpu // parallel.batch.microbatches
    runs: dict[int, ParallelRun] = {}
    for chunks in DEGREES:
        if tokens % chunks == 0:
            parts = known or next((run.built.parts for run in runs.values()), None)
            runs[chunks] = run_parallel(changed(file, {"overlap": {"pipeline": chunks}}), parts)
    tried = {chunks: float(run.step_s.mean()) for chunks, run in runs.items()}
    return replace(runs[min(tried, key=lambda chunks: tried[chunks])], tried=tried)


def ran(built: BuiltParallel, setups: tuple[ParallelSetup, ...]) -> ParallelRun:
    """Simulate the stages of a scenario (or changed ones), and put them together."""
    outcomes = tuple(simulate_parallel(setup) for setup in setups)
    batch = built.parallel.batch
    pass_s = np.stack([outcome.pass_s.reshape(batch.steps, batch.microbatches) for outcome in outcomes], axis=2)
    step_s = pipeline_s(pass_s, built.send_s)
    moves = built.plan.moves_s
    busy, waits = 0.0, dict[str, float]()
    for outcome in outcomes:
        busy += float(outcome.busy_s.mean(axis=1).sum()) / len(outcomes)
        for cause, seconds in outcome.waits_s.items():
            waits[cause] = waits.get(cause, 0.0) + float(seconds.mean(axis=1).sum()) / len(outcomes)
    waits[BUBBLE] = float(step_s.sum() - pass_s.sum() / len(outcomes))
    waits[MOVES] = float(moves.sum())
    kept = {cause: seconds for cause, seconds in waits.items() if seconds > 1e-12 or cause == SLOWER}
    return ParallelRun(built, outcomes, step_s + moves, busy, kept)


def pipeline_s(pass_s: Floats, send_s: float) -> Floats:
    """Seconds of each step whose microbatches follow each other through the stages, in order.

    ``end[m, p] = max(end[m - 1, p], end[m, p - 1] + send) + pass[m, p]``

    Args:
        pass_s: [steps, microbatches, stages]
    """
    steps, microbatches, stages = pass_s.shape
    end = np.zeros((steps, stages))
    for microbatch in range(microbatches):
        for stage in range(stages):
            arrived = end[:, stage - 1] + send_s if stage else np.zeros(steps)
            end[:, stage] = np.maximum(end[:, stage], arrived) + pass_s[:, microbatch, stage]
    return np.asarray(end[:, -1])
