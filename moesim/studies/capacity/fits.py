"""Does a model run on a machine, with what placed where, and about how fast? Arithmetic only; nothing is simulated.

All in GPU memory (of one GPU, or of several that divide every layer): a decode step is priced by the cost forms. Else
experts are offloaded: the GPU holds everything but routed experts and as many of those as fit, host memory the others,
the drive what is left. A token then waits for the experts that are not on the GPU, as if all were used equally often
and none were fetched early: routing with locality, and a cache that makes use of it, do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from moesim.costs.cpu_expert import cpu_expert_s
from moesim.costs.resident import Parallel, Resident, Step
from moesim.costs.transfer import transfer_s
from moesim.errors import MoesimError
from moesim.hardware import Node
from moesim.models import ModelSpec, Precisions, parameters
from moesim.scenario.serving.memory import gpu_memory, kv_bytes_per_token
from moesim.units import format_bytes

GPU_RESERVE, HOST_RESERVE = 2**30, 6 * 2**30


@dataclass(frozen=True)
class Placement:
    """One way to run it.

    Attributes:
        where: bytes by memory and what holds them.
        decode_tokens_per_s: of one request; ``most``: if every expert were on the GPU.
        kv_tokens: context that fits, of all requests together.
    """

    name: str
    gpus: int
    where: dict[str, str]
    decode_tokens_per_s: float
    most: float
    kv_tokens: int
    note: str


@dataclass(frozen=True)
class Fits:
    """The answer: the fastest way first; empty where there is none, and ``why`` not."""

    verdict: Literal["resident", "offloaded", "no"]
    placements: tuple[Placement, ...]
    why: str


def fits(spec: ModelSpec, precisions: Precisions, node: Node, context: int) -> Fits:
    """Every way to run a model on a machine.

    Args:
        context: positions of the one request that decodes.
    """
    whole, why = _resident(spec, precisions, node, context)
    parts, lacks = _offloaded(spec, precisions, node, context) if spec.num_moe_layers else ([], "")
    found = sorted([*whole, *parts], key=lambda way: -way.decode_tokens_per_s)
    verdict: Literal["resident", "offloaded", "no"] = "resident" if whole else "offloaded" if parts else "no"
    return Fits(verdict, tuple(found), "" if found else "; ".join(told for told in (why, lacks) if told))


def _resident(spec: ModelSpec, precisions: Precisions, node: Node, context: int) -> tuple[list[Placement], str]:
    """On 1, 2, 4, ... GPUs of the machine."""
    found, why, gpus = [], "", 1
    while gpus <= node.gpu_count:
        parallel = Parallel(tp=gpus)
        try:
            price = Resident(spec, precisions, node.gpu, parallel)
            memory = gpu_memory(
                spec,
                precisions,
                parallel,
                total=node.gpu.memory.value,
                utilization=0.95,
                reserve=GPU_RESERVE,
                kv_tokens=None,
            )
        except MoesimError as error:
            why = error.faults[0].message
        else:
            if memory.kv_tokens >= context and (gpus == 1 or node.gpu.nvlink):
                rate = 1 / _step_s(price, context)
                weights = format_bytes(memory.experts + memory.dense)
                where = {"each GPU": f"weights {weights}, KV cache {format_bytes(memory.kv)}"}
                found.append(Placement("all in GPU memory", gpus, where, rate, rate, memory.kv_tokens, ""))
        gpus *= 2
    return found, why


def _step_s(price: Resident, context: int) -> float:
    """One request's decode step."""
    spec = price.spec
    layers = np.ones(spec.num_moe_layers)
    step = Step(price.contexts(decode=[context]), pairs=spec.top_k * layers, distinct=spec.top_k * layers)
    return float(price.forward(step).seconds)


def _offloaded(spec: ModelSpec, precisions: Precisions, node: Node, context: int) -> tuple[list[Placement], str]:
    """Experts on the GPU, in host memory and on the drive, in this order."""
    gpu, size = node.gpu, parameters.expert_bytes(spec, precisions.experts)
    every = spec.num_moe_layers * spec.num_experts
    kv = kv_bytes_per_token(spec, Parallel(), precisions.kv_bytes_per_element) * context
    left = gpu.memory.value - GPU_RESERVE - kv - parameters.resident_bytes(spec, precisions.dense)
    if left < size:
        return [], f"offloaded: {gpu.title} can't hold the weights outside of routed experts"
    on_gpu = int(min(left // size, every))
    if on_gpu == every:
        return [], ""
    room = 0 if gpu.unified_memory else max(node.host_memory.value - HOST_RESERVE, 0)
    in_host = int(min(room // size, every)) if room // size < every else every
    below = every - (on_gpu if gpu.unified_memory else max(in_host, on_gpu))
    if below and node.storage is None:
        return [], f"offloaded: {format_bytes(below * size)} of experts fit nowhere, and there is no drive"
    where = {"GPU": f"{on_gpu} of {every} experts ({format_bytes(on_gpu * size)})"}
    if not gpu.unified_memory:
        where["host"] = f"{in_host} experts ({format_bytes(in_host * size)})"
    if below:
        where["drive"] = f"all experts ({format_bytes(every * size)}), {below} of them nowhere else"
    gpu_s = _step_s(Resident(spec, precisions, gpu), context)
    used, away, cold = spec.num_moe_layers * spec.top_k, 1 - on_gpu / every, below / every
    read_s = 0.0
    if node.storage is not None and below:
        rate = node.storage.read_bandwidth.value * node.storage.read_efficiency.value
        read_s = used * cold * float(transfer_s(np.float64(size), node.storage.read_latency.value, rate))
    copy_s = 0.0
    if not gpu.unified_memory:
        copy_s = used * away * float(transfer_s(np.float64(size), node.link.latency.value, node.link.bandwidth.value))
    note = "experts used evenly, none fetched early (assumed)"
    ways = [
        Placement(
            "experts offloaded, misses fetched", 1, where, 1 / (gpu_s + read_s + copy_s), 1 / gpu_s, context, note
        )
    ]
    if not gpu.unified_memory:
        computed = used * away * float(cpu_expert_s(1, spec, precisions.experts, node.cpu))
        ways.append(
            Placement("misses computed on the CPU", 1, where, 1 / (gpu_s + read_s + computed), 1 / gpu_s, context, note)
        )
    return ways, ""
