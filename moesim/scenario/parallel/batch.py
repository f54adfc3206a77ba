"""Which rows of the trace each GPU holds in each step, and which ones a placement may learn from."""

from __future__ import annotations

import zlib
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
        label: what the trace's experts are called in each step, where the load drifts. [steps, layers, experts]
    """

    row: Ints
    learned: Ints
    reuse: float
    label: Ints | None = None

    def routed(self, trace: RoutingTrace, row: Ints, step: Ints | int) -> Ints:
        """The experts that rows choose in a step, -1 where there is none. [..., layers, top_k]

        Args:
            row: [...]
            step: of all rows, or of each. [...]
        """
        experts = np.asarray(trace.experts)[row].astype(np.int64)
        none = experts == trace.sentinel
        if self.label is not None:
            layer = np.arange(experts.shape[-2])[:, None]
            at = np.asarray(step)[..., None, None]
            experts = self.label[at, layer, np.where(none, 0, experts)]
        return np.where(none, -1, experts)


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
    label = _drifting(trace, wanted, scenario.seed) if wanted.drift else None
    return Batch(rows[_places(wanted, gpus, len(rows))], learned, _used(wanted, gpus) / len(rows), label)


def _drifting(trace: RoutingTrace, wanted: BatchSpec, seed: int) -> Ints:
    """Labels of experts: after each step a share of every layer's, chosen by chance, trade places in a cycle."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"drift")]))
    layers, experts = trace.num_layers, trace.card.num_experts
    changing = max(round(wanted.drift * experts), 2)
    label = np.tile(np.arange(experts), (wanted.steps, layers, 1))
    for step in range(1, wanted.steps):
        label[step] = label[step - 1]
        for layer in range(layers):
            chosen = rng.choice(experts, changing, replace=False)
            label[step, layer, chosen] = np.roll(label[step, layer, chosen], 1)
    return label


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
