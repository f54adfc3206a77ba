"""The frozen input of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.costs.charges import Charge
from moesim.costs.node_times import Times
from moesim.costs.roofline import OpTime
from moesim.policies.api import Candidates, Policy
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
Rule = Literal["reserve", "evict_after"]
LinkDiscipline = Literal["fifo", "demand-first"]


@dataclass(frozen=True)
class TierSetup:
    """A tier that holds experts: how many bytes of them, under which policy, split by layer or not.

    ``layer_bytes``: of each layer's part; default: equal ones. [layers] ``pinned``: keys that never leave. ``asks``: as
    in ``CacheContext``, for host memory.
    """

    policy: Policy
    capacity_bytes: int
    per_layer: bool = False
    training_uses: Ints | None = None
    layer_bytes: tuple[int, ...] | None = None
    pinned: tuple[int, ...] = ()
    asks: tuple[Ints, Ints] | None = None


@dataclass(frozen=True)
class Form:
    """Another form in which experts come to the GPU, with space of its own there.

    Attributes:
        tier: that space, and the policy in it.
        sizes: bytes of each expert in this form. [keys]
        copy_s, read_s: as in ``Times``, for these bytes. [keys]
        expert: a routed expert in this form on the GPU. [lookups]
        charges: of ``expert``, where it is not as in ``Times``.
    """

    tier: TierSetup
    sizes: Ints
    copy_s: NDArray[np.float64]
    read_s: NDArray[np.float64]
    expert: OpTime
    charges: tuple[Charge, ...] = ()


@dataclass(frozen=True)
class Pieces:
    """Prefetches cut into pieces of equal size.

    Attributes:
        count: pieces of each expert. [keys]
        copy_s, read_s: seconds of one of them, as in ``Times``. [keys]
    """

    count: Ints
    copy_s: NDArray[np.float64]
    read_s: NDArray[np.float64]


#: Numbers of the forms: as the scenario stores experts, the same in space for streaming, and in low precision.
FULL, STREAMED, LOW = range(3)


@dataclass(frozen=True)
class Setup:
    """One offloading node with a workload.

    Attributes:
        visits: the workload.
        times: what everything costs.
        sizes: bytes of each expert. [keys]
        gpu: the GPU's expert cache.
        host: the host's expert cache in front of flash; None: host memory holds every expert.
        unified: GPU and host share one memory, so that experts come from flash straight into ``gpu``.
        rule: the capacity rule of the GPU's cache.
        link: in which order transfers leave a link's queue.
        candidates: what to prefetch, by visit.
        prefetch: the policy that proposed them, where it also chooses when they go out.
        pieces: how prefetches in each form are cut; empty: they go in one piece.
        withdraw: whether a prefetch is given up when the router that it was made for has not chosen it.
        on_miss: what becomes of a missing expert.
        warmup_steps: steps at the start that run but are not counted.
        streamed: experts that pass through, where the on-miss policy streams.
        low: copies in low precision, where the on-miss policy uses them.
        narrow: whether a lookup's expert is stored in fewer bits than the scenario's precision. [lookups]
    """

    visits: Visits
    times: Times
    sizes: Ints
    gpu: TierSetup
    host: TierSetup | None
    unified: bool
    rule: Rule
    link: LinkDiscipline
    candidates: Candidates
    on_miss: Policy
    warmup_steps: int = 0
    streamed: Form | None = None
    low: Form | None = None
    narrow: NDArray[np.bool_] | None = None
    prefetch: Policy | None = None
    pieces: Mapping[int, Pieces] = field(default_factory=dict)
    withdraw: bool = True

    @property
    def forms(self) -> dict[int, Form]:
        """The forms beside FULL that are used, by number."""
        forms = {STREAMED: self.streamed, LOW: self.low}
        return {number: form for number, form in forms.items() if form is not None}

    @property
    def gpu_bytes(self) -> int:
        """Space for experts on the GPU, in all forms."""
        return self.gpu.capacity_bytes + sum(form.tier.capacity_bytes for form in self.forms.values())

    @cached_property
    def _sizes_by_form(self) -> Ints:
        """[forms, keys]"""
        forms = self.forms
        return np.stack([forms[form].sizes if form in forms else self.sizes for form in (FULL, STREAMED, LOW)])

    def bytes_of(self, key: Ints, form: Ints) -> Ints:
        """Of experts in their forms. [n] from [n], [n]"""
        return self._sizes_by_form[form, key]
