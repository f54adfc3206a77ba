"""What the counting kernels replay: a workload's activations and lookups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Uses:
    """The arrays of :class:`moesim.traces.visits.Visits`, and the answer.

    Attributes:
        layers: MoE layers; visit v is layer ``v % layers`` of step ``v // layers``.
        starts_request: [steps]
        start, key, note: each visit's activations; no notes where the policy takes none.
        lookup_start, lookup_key: each visit's lookups.
        hit: written by a kernel. [activations or lookups]
    """

    layers: int
    starts_request: Any
    start: Any
    key: Any
    note: Any
    lookup_start: Any
    lookup_key: Any
    hit: Any
