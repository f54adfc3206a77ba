"""Which rows of the trace each GPU holds in each step, and which ones a placement may learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ScenarioError
from moesim.scenario.parallel.schema import BatchSpec
from moesim.scenario.schema import Scenario
from moesim.traces import RoutingTrace
from moesim.traces.trace import DECODE, PREFILL

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """The tokens of the simulated steps.

    Attributes:
        row: of the trace. [steps, gpus, tokens]
        learned: rows that placement may see before the run. [rows]
        reuse: how often a row of the scored part is used, in the mean; above 1 it is said.
    """

    row: Ints
    learned: Ints
    reuse: float


def batch_of(trace: RoutingTrace, scenario: Scenario, gpus: int) -> Batch:
    """The tokens of each GPU in each step.

    Decode: a slot for each (GPU, token) walks through the rows from a place of its own, one row a step, so that what
    follows in a request follows in the slot. Prefill: each GPU takes chunks of consecutive rows.

    Raises:
        ScenarioError: the trace has no token of that phase to score.
    """
    parallel = scenario.parallel
    assert parallel is not None
    wanted = parallel.batch
    ids = trace.request_ids
    learned_requests = ids[: round(len(ids) * scenario.workload.train_fraction)]
    is_learned = np.isin(trace.request, learned_requests)
    in_phase = np.asarray(trace.phase) == (DECODE if wanted.phase == "decode" else PREFILL)
    rows = np.flatnonzero(in_phase & ~is_learned)
    if not len(rows):
        told = f"the trace has no {wanted.phase} token to score"
        raise ScenarioError.of("parallel.batch.phase", told, "the other phase, or a smaller workload.train_fraction")
    learned = np.flatnonzero(is_learned & in_phase)
    if parallel.profile == "oracle":
        learned = rows
    return Batch(rows[_places(wanted, gpus, len(rows))], learned, _used(wanted, gpus) / len(rows))


def _used(wanted: BatchSpec, gpus: int) -> int:
    return wanted.steps * gpus * wanted.tokens_per_gpu


def _places(wanted: BatchSpec, gpus: int, rows: int) -> Ints:
    """Places in the list of rows. [steps, gpus, tokens]"""
    steps, tokens = wanted.steps, wanted.tokens_per_gpu
    if wanted.phase == "prefill":
        return np.arange(_used(wanted, gpus)).reshape(steps, gpus, tokens) % rows
    slot = np.arange(gpus * tokens)
    first = slot * rows // (gpus * tokens) if gpus * tokens <= rows else slot % rows
    return ((first[None] + np.arange(steps)[:, None]) % rows).reshape(steps, gpus, tokens)
