"""What the processors and links of a node achieve, from their cards."""

from __future__ import annotations

from collections.abc import Mapping

from moesim.costs.roofline import Device
from moesim.hardware import CpuSpec, GpuSpec

_WIDER = {"fp4": ("fp8", "bf16", "fp16"), "fp8": ("bf16", "fp16"), "int8": ("bf16", "fp16"), "bf16": ("fp16", "fp32")}


def arithmetic(offered: Mapping[str, object], wanted: str) -> str:
    """The precision in which a processor computes when ``wanted`` is asked of it: itself, or the next wider it has."""
    for name in (wanted, *_WIDER.get(wanted, ()), "bf16", "fp16", "fp32"):
        if name in offered:
            return name
    return next(iter(offered))


def gpu_device(gpu: GpuSpec, wanted: str) -> Device:
    """The GPU in the arithmetic of a precision (see :func:`arithmetic`)."""
    return Device(
        flop_per_s=gpu.compute[arithmetic(gpu.compute, wanted)].value * gpu.compute_efficiency.value,
        bytes_per_s=gpu.memory_bandwidth.value * gpu.memory_efficiency.value,
        launch_s=gpu.kernel_launch.value,
    )


def cpu_arithmetic(cpu: CpuSpec) -> str:
    """The precision in which a CPU computes experts: bf16, or the next that its card has."""
    return arithmetic(cpu.compute, "bf16")


def cpu_device(cpu: CpuSpec) -> Device:
    """All cores of the CPU (see :func:`cpu_arithmetic`)."""
    return Device(
        flop_per_s=cpu.compute[cpu_arithmetic(cpu)].value * cpu.compute_efficiency.value,
        bytes_per_s=cpu.memory_bandwidth.value * cpu.memory_efficiency.value,
    )
