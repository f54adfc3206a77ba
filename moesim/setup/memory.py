"""What fits where: GPU and host memory by category, and what is left for experts."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.errors import Fault, ScenarioError
from moesim.units import format_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by category. ``host_experts`` is None where host memory holds every expert.

    Attributes:
        gpu_total, host_total: what the machine has.
        dense: weights outside of routed experts, on the GPU.
        kv: the KV cache of the longest context, for all requests that run together.
        gpu_reserve, host_reserve: for everything else.
        gpu_experts, host_experts: what holds experts.
        all_experts: what all routed experts take.
    """

    gpu_total: int
    host_total: int
    dense: int
    kv: int
    gpu_reserve: int
    host_reserve: int
    gpu_experts: int
    host_experts: int | None
    all_experts: int


def plan_memory(
    *,
    gpu_total: int,
    host_total: int,
    dense: int,
    kv: int,
    gpu_reserve: int,
    host_reserve: int,
    all_experts: int,
    gpu_experts: int | None,
    host_experts: int | None,
    unified: bool,
    has_storage: bool,
) -> MemoryPlan:
    """Share out memory; ``None`` asks for what is left.

    Raises:
        ScenarioError: something does not fit; says what takes how much.
    """
    left = gpu_total - dense - kv - gpu_reserve
    spent = (
        f"{format_bytes(gpu_total)} less dense weights {format_bytes(dense)}, KV cache {format_bytes(kv)} "
        f"and reserve {format_bytes(gpu_reserve)}"
    )
    faults = []
    if left <= 0:
        hint = "a larger GPU, precision.dense: int8, or a smaller batch"
        faults.append(Fault("memory.gpu_experts", f"nothing is left for experts on the GPU: {spent}", hint))
    elif gpu_experts is not None and gpu_experts > left:
        given = f"{format_bytes(gpu_experts)} for experts do not fit: {format_bytes(left)} are left ({spent})"
        faults.append(Fault("memory.gpu_experts", given, "auto takes what is left"))
    host_left = gpu_total if unified else host_total - host_reserve
    if host_left < 0:
        kept = f"{format_bytes(host_reserve)} are more than the host's {format_bytes(host_total)}"
        faults.append(Fault("memory.host_reserve", kept, "a smaller reserve"))
        host_left = 0
    if host_experts is not None and host_experts > host_left:
        given = f"{format_bytes(host_experts)} for experts do not fit: {format_bytes(host_left)} are left"
        faults.append(Fault("memory.host_experts", given, "more hardware.host_memory, or auto"))
    on_host = max(0, host_left) if host_experts is None else host_experts
    if not unified and on_host < all_experts and not has_storage:
        held = f"{format_bytes(on_host)} of {format_bytes(all_experts)} of experts"
        lacks = f"host memory holds {held}, and no storage is below"
        faults.append(Fault("hardware", lacks, "name a storage card, or more host_memory"))
    if faults:
        raise ScenarioError(faults)
    return MemoryPlan(
        gpu_total=gpu_total,
        host_total=host_total,
        dense=dense,
        kv=kv,
        gpu_reserve=gpu_reserve,
        host_reserve=host_reserve,
        gpu_experts=min(left if gpu_experts is None else gpu_experts, all_experts),
        host_experts=None if unified or on_host >= all_experts else on_host,
        all_experts=all_experts,
    )
