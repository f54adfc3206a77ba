"""How experts are stored: the bytes of each, what it then costs to compute, and whose output that changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moesim.costs.charges import Charge
from moesim.costs.node_times import FormTimes, Times, form_times
from moesim.costs.roofline import OpTime
from moesim.errors import Fault, ScenarioError
from moesim.models import parameters
from moesim.models.precision import Precision, get_precision
from moesim.policies.precision import Planes, StoredExperts
from moesim.scenario.parts import Parts
from moesim.scenario.planes import expand
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
SCALE_BITS = 16 / 128
NESTED = ", nested"
#: Caching policies under which a lower plane never leaves before a higher one of its expert.
KEEP_NESTING = ("d2moe", "lru", "none")


@dataclass(frozen=True)
class Stored:
    """Experts as a precision policy stores them.

    Attributes:
        visits: the workload; over bit-planes in place of experts, where they are nested.
        sizes: bytes of each key.
        precisions: those in which they are computed.
        which: the place in ``precisions`` of each lookup. [lookups]
        tokens: that each lookup is computed for; fewer than use it, where others wait for a higher plane. [lookups]
        narrow: whether a lookup is computed in fewer bits than the scenario's precision has. [lookups]
    """

    visits: Visits
    sizes: Ints
    precisions: tuple[Precision, ...]
    which: Ints
    tokens: Ints
    narrow: NDArray[np.bool_]

    def check_room(self, gpu_bytes: int) -> None:
        """Refuse bit-planes of which a visit needs more than there is room for.

        It would run in waves, in which a lower plane may leave before a higher one is brought.

        Raises:
            ScenarioError: with how much is needed.
        """
        ends = np.concatenate([[0], np.cumsum(self.sizes[self.visits.lookup_key])])[self.visits.lookup_start]
        largest = int(np.diff(ends).max())
        if len(self.precisions) > 1 and self.precisions[0].name.endswith(NESTED) and largest > gpu_bytes:
            told = f"a visit needs {largest} bytes of bit-planes at once, and {gpu_bytes} are left for experts"
            raise ScenarioError.of(
                "memory.gpu_experts", told, "more of it, or a smaller workload.prefill_chunk or batch"
            )

    def price(self, times: Times, parts: Parts) -> Times:
        """``times``, which are those of the scenario's own precision, with what differs replaced."""
        if self.precisions == (parts.precisions.experts,):
            return times
        priced = replace(self.visits, lookup_tokens=self.tokens)
        columns = [
            form_times(parts.model, parts.precisions, p, parts.node, priced, self.sizes, parts.ways)
            for p in self.precisions
        ]
        is_used = self.tokens > 0
        names = ("compute_s", "memory_s", "launch_s")
        chosen = (self._choose([getattr(form.expert, name) for form in columns]) * is_used for name in names)
        cpu_s = self._choose([form.cpu_s for form in columns])
        return replace(times, expert=OpTime(*chosen), cpu_s=cpu_s, charges=self._charges(times, columns))

    def _charges(self, times: Times, columns: Sequence[FormTimes]) -> tuple[Charge, ...]:
        """Those of the scenario's own precision, with the experts' replaced by those of their precisions."""
        kept = [charge for charge in times.charges if charge.place != "expert"]
        for place, form in enumerate(columns):
            chosen = (self.which == place) & (self.tokens > 0)
            kept += [replace(charge, seconds=charge.seconds * chosen) for charge in form.charges]
        return tuple(kept)

    def _choose(self, columns: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.choose(self.which, columns) if len(columns) > 1 else columns[0]


def stored_experts(parts: Parts, visits: Visits, uses: Ints | None, folder: Path, rng: np.random.Generator) -> Stored:
    """What the precision policy makes of the experts.

    Raises:
        ScenarioError, PolicyError: what the policy names can't be stored, or does not go with the others.
    """
    policy = parts.policies["precision"]
    if hasattr(policy.module, "planes"):
        return _nested(parts, visits, policy.module.planes(policy.params), rng)
    known = StoredExperts(visits.num_layers, visits.num_experts, parts.precisions.experts.name, folder, uses)
    names = policy.module.assign(policy.params, known)
    distinct = list(dict.fromkeys(names))
    precisions = tuple(get_precision(name) for name in distinct)
    place = np.array([distinct.index(name) for name in names], dtype=np.int64)
    sizes = np.array([parameters.expert_bytes(parts.model, precision) for precision in precisions], dtype=np.int64)
    bits = np.array([precision.bits_per_weight for precision in precisions])
    which = place[visits.lookup_key]
    narrow = bits[which] < parts.precisions.experts.bits_per_weight
    return Stored(visits, sizes[place], precisions, which, visits.lookup_tokens, narrow)


def _nested(parts: Parts, visits: Visits, planes: Planes, rng: np.random.Generator) -> Stored:
    faults = []
    if (caching := parts.policies["caching"].name) not in KEEP_NESTING:
        told = f"{caching!r} may drop a lower bit-plane before a higher one of the same expert"
        faults.append(Fault("policies.caching", told, "one of: " + ", ".join(KEEP_NESTING)))
    for key, only in (("prefetch", "none"), ("on_miss", "fetch")):
        if parts.policies[key].name != only:
            told = f"nested bit-planes go with {key} {only!r} only"
            faults.append(Fault(f"policies.{key}", told, only))
    wanted = getattr(parts.policies["caching"].params, "planes", len(planes.bits))
    if wanted != len(planes.bits):
        told = f"is for {wanted} planes, and experts have {len(planes.bits)}"
        faults.append(Fault("policies.caching", told, f"planes: {len(planes.bits)}"))
    if faults:
        raise ScenarioError(faults)
    weights = parameters.expert_params(parts.model)
    widths = [planes.bits[0] + SCALE_BITS, *np.diff(planes.bits)]
    sizes = np.tile(np.ceil(weights * np.array(widths) / 8).astype(np.int64), visits.num_keys)
    precisions = tuple(
        Precision(
            f"{bits} bits{NESTED}", bits + SCALE_BITS, "bf16", "nested bit-planes", "policies/precision/nested.py"
        )
        for bits in planes.bits
    )
    expanded, tokens = expand(visits, planes, rng)
    which = expanded.lookup_key % len(planes.bits)
    bits = np.array([precision.bits_per_weight for precision in precisions])
    narrow = bits[which] < parts.precisions.experts.bits_per_weight
    return Stored(expanded, sizes, precisions, which, tokens, narrow)
