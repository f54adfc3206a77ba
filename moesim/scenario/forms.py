"""Forms in which experts come to the GPU beside their own: through space for streaming, and in low precision.

Their space is taken from what the GPU has for experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.node_times import Times, form_times, transfers
from moesim.errors import Fault, ScenarioError
from moesim.models import parameters
from moesim.models.precision import get_precision
from moesim.policies import api
from moesim.scenario.parts import Parts
from moesim.setup import Form, Pieces, TierSetup
from moesim.traces.visits import Visits
from moesim.units import parse

Ints = NDArray[np.int64]
#: A prefetch is simulated piece by piece.
MOST_PIECES = 1000


@dataclass(frozen=True)
class Forms:
    """What is left for experts in full, and the other forms that the on-miss policy needs."""

    gpu_bytes: int
    streamed: Form | None
    low: Form | None


def forms_of(parts: Parts, visits: Visits, times: Times, sizes: Ints, gpu_bytes: int, uses: Ints | None) -> Forms:
    """Share out the GPU's space for experts among the forms.

    Raises:
        ScenarioError: a share does not hold one expert.
    """
    policy, largest = parts.policies["on_miss"], int(sizes.max())
    streamed = low = None
    left = gpu_bytes
    if api.STREAM in policy.actions:
        space = getattr(policy.params, "slots", 2) * largest
        tier = TierSetup(api.load("caching", "none"), space)
        streamed = Form(tier, sizes, times.copy_s, times.read_s, times.expert)
        left -= space
    if api.LOW in policy.actions:
        low = _low(parts, visits, sizes, gpu_bytes, uses)
        left -= low.tier.capacity_bytes
    if left < largest:
        told = f"{gpu_bytes} bytes leave {left} for experts in full, and one takes {largest}"
        raise ScenarioError.of("memory.gpu_experts", told, "more of it, or fewer streaming slots")
    return Forms(left, streamed, low)


def pieces_of(chunk: str, parts: Parts, sizes: Mapping[int, Ints]) -> dict[int, Pieces]:
    """How prefetches are cut: each into equal pieces, as few as are no larger than ``chunk``; nothing for 'whole'.

    Args:
        sizes: of experts in each form that is prefetched. [keys] each
    """
    if chunk == "whole":
        return {}
    largest = max(1, round(parse(chunk, "bytes")))
    cut = {}
    for form, whole in sizes.items():
        count = -(-whole // largest)
        if count.max() > MOST_PIECES:
            told = f"{chunk} makes {count.max()} pieces of an expert, and {MOST_PIECES} is the most"
            raise ScenarioError.of("policies.chunk", told, "a few MiB")
        cut[form] = Pieces(count, *transfers(parts.node, -(-whole // count), parts.ways))
    return cut


def _low(parts: Parts, visits: Visits, sizes: Ints, gpu_bytes: int, uses: Ints | None) -> Form:
    """Copies in the low precision that the policy's parameters name."""
    policy = parts.policies["on_miss"]
    precision = get_precision(getattr(policy.params, "precision", "int4"))
    own = parts.precisions.experts
    if precision.bits_per_weight >= own.bits_per_weight:
        told = f"{precision.name} is no lower precision than the experts' own {own.name}"
        raise ScenarioError([Fault("policies.on_miss", told, "fewer bits, or experts in a wider precision")])
    low_bytes = parameters.expert_bytes(parts.model, precision)
    low_sizes = np.full(len(sizes), low_bytes, dtype=np.int64)
    capacity = round(getattr(policy.params, "low_share", 0.25) * gpu_bytes)
    if capacity < low_bytes:
        told = f"{capacity} bytes for copies in low precision do not hold one of {low_bytes}"
        raise ScenarioError([Fault("policies.on_miss", told, "a larger low_share")])
    times = form_times(parts.model, parts.precisions, precision, parts.node, visits, low_sizes, parts.ways)
    tier = TierSetup(parts.policies["low_caching"], capacity, False, uses)
    charges = tuple(replace(charge, place="low") for charge in times.charges)
    return Form(tier, low_sizes, times.copy_s, times.read_s, times.expert, charges)
