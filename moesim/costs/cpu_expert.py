"""A routed expert on the host's CPU.

``t = start + max(W / B(n), 2 P T' / F(n)) + A / B(n)``

- ``W`` stored bytes of its weights, from DRAM: ``B(n) = e_b min(B, n * per_core)`` for n threads, one to a core; a few
  cores saturate DRAM.
- ``2 P T'`` FLOP for P weights: ``F(n) = e_c F n / cores``, and matrix tiles (AMX: 16 rows) compute whole ones,
  ``T' = ceil(T / rows) rows``. Which regime is longer decides: one token reads, many compute.
- ``A = 2 T (2 H + (g - 1) I)`` bf16 activations in and out.
- ``start``: waking the threads, and joining them (assumed).

Assumes weights on the threads' own NUMA nodes, and widening of narrow weights hidden behind reading them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs.devices import cpu_arithmetic
from moesim.costs.part import Basis, Constant, Part, card_constant
from moesim.hardware import CpuSpec
from moesim.models import ModelSpec, Precision, parameters

#: What one core can draw from DRAM, bytes per second: ten to twenty GB/s on desktop and server parts. Assumed.
PER_CORE_BYTES_PER_S = 14e9
#: A fork and join of a pool of spinning threads. Assumed.
START_S = 5e-6
#: FLOP per core and second above which a rate must come from matrix tiles (AMX has 1024 per clock, AVX-512 128).
_TILED_FLOP_PER_S = 512 * 2e9
TILE_ROWS = 16


def cpu_expert_s(
    tokens: ArrayLike, spec: ModelSpec, stored: Precision, cpu: CpuSpec, threads: int | None = None
) -> NDArray[np.float64]:
    """Seconds of one expert for so many tokens, on ``threads`` cores (default: all). [...]"""
    return cpu_expert(tokens, spec, stored, cpu, threads).seconds


def cpu_expert(tokens: ArrayLike, spec: ModelSpec, stored: Precision, cpu: CpuSpec, threads: int | None = None) -> Part:
    """The same with its terms: of weights and arithmetic the longer one, the other hidden behind it."""
    count = np.asarray(tokens, dtype=np.float64)
    used = cpu.cores.value if threads is None else min(threads, cpu.cores.value)
    weights = parameters.expert_params(spec)
    read_s = stored.bytes_for(weights) / memory_bytes_per_s(cpu, used)
    compute_s = 2 * weights * np.ceil(count / _tile(cpu)) * _tile(cpu) / flop_per_s(cpu, used)
    inner = (spec.ffn_matrices - 1) * spec.moe_intermediate_size
    activations = 2 * count * (2 * spec.hidden_size + inner)
    terms = {
        "start": np.full(count.shape, START_S),
        "expert weights": np.where(compute_s > read_s, 0.0, read_s),
        "arithmetic": np.where(compute_s > read_s, compute_s, 0.0),
        "activations": activations / memory_bytes_per_s(cpu, used),
    }
    present = {name: np.where(count > 0, seconds, 0.0) for name, seconds in terms.items()}
    basis = Basis("CPU expert", f"{used} threads", "card", constants(cpu))
    return Part("CPU", present, basis, np.zeros(count.shape, dtype=bool))


def constants(cpu: CpuSpec) -> tuple[Constant, ...]:
    """What an expert on the CPU rests on."""
    rate = cpu_arithmetic(cpu)
    return (
        card_constant("cpu.memory_bandwidth", cpu.memory_bandwidth, "B/s"),
        card_constant("cpu.memory_efficiency", cpu.memory_efficiency, "1"),
        card_constant(f"cpu.compute.{rate}", cpu.compute[rate], "FLOP/s"),
        card_constant("cpu.compute_efficiency", cpu.compute_efficiency, "1"),
        Constant("cpu.per_core", PER_CORE_BYTES_PER_S, "B/s", "moesim.costs.cpu_expert", "assumed"),
        Constant("cpu.start", START_S, "s", "moesim.costs.cpu_expert", "assumed"),
    )


def flop_per_s(cpu: CpuSpec, threads: int) -> float:
    """What so many cores compute together."""
    peak = cpu.compute[cpu_arithmetic(cpu)].value
    return peak * cpu.compute_efficiency.value * threads / cpu.cores.value


def _tile(cpu: CpuSpec) -> int:
    """Tokens that the CPU's arithmetic takes together."""
    peak = cpu.compute[cpu_arithmetic(cpu)].value
    return TILE_ROWS if peak / cpu.cores.value > _TILED_FLOP_PER_S else 1


def memory_bytes_per_s(cpu: CpuSpec, threads: int) -> float:
    """What so many cores draw from DRAM together."""
    return cpu.memory_efficiency.value * min(cpu.memory_bandwidth.value, threads * PER_CORE_BYTES_PER_S)
