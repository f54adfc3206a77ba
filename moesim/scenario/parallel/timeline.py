"""What the timeline of a parallel run shows."""

from __future__ import annotations

import numpy as np

from moesim.engine.parallel_timeline import ParallelTimeline
from moesim.scenario.parallel.parts import layers_of_stage
from moesim.scenario.parallel.run import ParallelRun


def timeline_of(run: ParallelRun) -> ParallelTimeline:
    """The first pass through every stage, one after the other."""
    built = run.built
    model, degrees = built.parts.model, built.parts.degrees
    indices, begins, offset = np.array(model.moe_layer_indices), [], 0.0
    for outcome in run.outcomes:
        begins.append(offset)
        offset += float(outcome.pass_s[0]) + built.send_s
    return ParallelTimeline(
        stages=[(outcome.spans, begin) for outcome, begin in zip(run.outcomes, begins, strict=True)],
        layers=[indices[layers_of_stage(model, stage, degrees.pp)[1]].tolist() for stage in range(degrees.pp)],
        busy_s=[stage.counts.first_busy_s for stage in built.stages],
        link_names=[link.name for link in built.parts.topology.links],
        gpus_per_stage=degrees.stage,
    )
