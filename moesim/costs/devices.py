"""In which arithmetic a processor computes."""

from __future__ import annotations

from collections.abc import Mapping

from moesim.hardware import CpuSpec

_WIDER = {"fp4": ("fp8", "bf16", "fp16"), "fp8": ("bf16", "fp16"), "int8": ("bf16", "fp16"), "bf16": ("fp16", "fp32")}


def arithmetic(offered: Mapping[str, object], wanted: str) -> str:
    """The precision in which a processor computes when ``wanted`` is asked of it: itself, or the next wider it has."""
    for name in (wanted, *_WIDER.get(wanted, ()), "bf16", "fp16", "fp32"):
        if name in offered:
            return name
    return next(iter(offered))


def cpu_arithmetic(cpu: CpuSpec) -> str:
    """The precision in which a CPU computes experts: bf16, or the next that its card has."""
    return arithmetic(cpu.compute, "bf16")
