"""Kernels on one GPU, priced by the fitted forms: what each costs, which constants that rests on, and how far.

Order of trust for the constants of a form: fitted on this GPU in this software stack; the class's (all GPUs that were
measured), scaled by this GPU's datasheet. Elementwise kernels (norms, activations, copies of a few rows) have no fit:
``t = launch + bytes / (e_b B)`` with the card's numbers.

A price is *extrapolated* where a size lies outside of those that the constants were fitted to, or a precision is
another one; its kind is then ``assumed``, whatever the constants'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs import attention, collective, dispatch, gemm, moe_layer
from moesim.costs.devices import arithmetic
from moesim.costs.fitted import Form, Peaks, Work, peaks_of
from moesim.costs.measured import corrected
from moesim.costs.moe_kernels import FIXED_TILES, moe_stack, tuned_shapes
from moesim.costs.part import Basis, Constant, How, Part, also, card_constant, choose
from moesim.hardware import GpuSpec, Sourced, load_link
from moesim.hardware.fits import Fit, FitKey, find, shipped_fits
from moesim.hardware.override import SOURCE as OVERRIDE
from moesim.models import Precision, get_precision

#: A kernel of a replayed CUDA graph starts after so much of a launch in a stream: 1.3 us of 2.5 on an H200, 1.4 of 2.7
#: on an A100 (te42kyfo/gpu-benches, kernel repeated on 64 kB).
GRAPH_LAUNCH = 0.52
#: vLLM's own all-reduce takes messages up to so many bytes (``max_size`` of ``CustomAllreduce``), NCCL the others.
CUSTOM_ALL_REDUCE_BYTES = 8 * 2**20
_BF16 = get_precision("bf16")
#: Operations that are one kernel each, on all SMs.
_SINGLE_KERNELS = ("gemm", "attention_decode", "attention_prefill")


@dataclass(frozen=True)
class Software:
    """The software that runs the kernels: ``engine``, and whether decode steps replay CUDA graphs."""

    engine: Literal["vllm", "sglang", "trtllm"] = "vllm"
    cuda_graphs: bool = True


class Kernels:
    """Prices kernels of a software stack on a GPU.

    Args:
        fits: fitted constants; by default the shipped ones.
    """

    def __init__(self, gpu: GpuSpec, software: Software | None = None, fits: Mapping[FitKey, Fit] | None = None):
        self.gpu, self.software = gpu, software or Software()
        self.fits = shipped_fits() if fits is None else fits
        self.capability = float(gpu.compute_capability or 0.0)

    def elementwise(self, num_bytes: ArrayLike, kernels: float = 1, name: str = "elementwise") -> Part:
        """Kernels that only move ``num_bytes`` altogether."""
        gpu = self.gpu
        launch = gpu.kernel_launch.value * (GRAPH_LAUNCH if self.software.cuda_graphs else 1.0)
        moved = np.asarray(num_bytes, dtype=np.float64)
        rate = gpu.memory_bandwidth.value * gpu.memory_efficiency.value
        constants = (
            card_constant("gpu.kernel_launch", gpu.kernel_launch, "s"),
            card_constant("gpu.memory_bandwidth", gpu.memory_bandwidth, "B/s"),
            card_constant("gpu.memory_efficiency", gpu.memory_efficiency, "1"),
        )
        basis = Basis("elementwise", self.software.engine, "card", constants)
        terms = {"launch": np.where(moved > 0, launch * kernels, 0.0), "memory": moved / rate}
        return Part(name, terms, basis, np.zeros(moved.shape, dtype=bool))

    def dequantise(self, weights: ArrayLike, stored: Precision) -> Part:
        """A pass of its own that widens stored weights to bf16: ``t = launch + weights (w + 2) / (e_b B)``."""
        count = np.asarray(weights, dtype=np.float64)
        return self.elementwise(count * (stored.bits_per_weight / 8 + 2), 1, "dequantisation")

    def gemm(self, m: ArrayLike, n: float, k: float, stored: Precision = _BF16, name: str = "projections") -> Part:
        """``y[m, n] = x[m, k] w[k, n]`` with weights stored in a precision."""
        rows = np.asarray(m, dtype=np.float64)
        sizes = {"m": rows, "n": np.asarray(float(n)), "k": np.asarray(float(k))}
        work = {**sizes, "weight_bytes": np.asarray(stored.bits_per_weight / 8)}
        return self._price(name, gemm.FORM, self.software.engine, work, rows > 0, stored, "bf16")

    def decode_attention(self, shape: attention.HeadShape, load: Work, kv_bytes: float = 2.0) -> Part:
        """Attention of one layer for decoding requests (:func:`moesim.costs.attention.decode_load`)."""
        return self._attention("attention decode", attention.DECODE, self._decode_stack(), shape, load, kv_bytes)

    def prefill_attention(self, shape: attention.HeadShape, load: Work, kv_bytes: float = 2.0) -> Part:
        """Attention of one layer for prefilling requests (:func:`moesim.costs.attention.prefill_load`)."""
        stack = self._decode_stack().replace("decode", "prefill")
        part = self._attention("attention prefill", attention.PREFILL, stack, shape, load, kv_bytes)
        chunked = np.broadcast_to(load["past"] > 0, part.extrapolated.shape)
        return also(part, chunked, "queries after positions in the cache; fitted without")

    def moe_layer(self, work: Work, stored: Precision = _BF16) -> Part:
        """A fused MoE layer on one rank.

        Args:
            work: ``tokens, topk, hidden, width, matrices, local_experts, ranks, gpus, pairs, distinct``
                (:mod:`moesim.costs.moe_layer`).
        """
        stack = moe_stack(self.software.engine, compute_capability=self.capability)
        fixed = stack in FIXED_TILES
        shape = (int(np.max(work["local_experts"])), int(np.max(work["width"])))
        full = {
            **work,
            "weight_bytes": np.asarray(stored.bits_per_weight / 8),
            "untuned": np.asarray(float(fixed and shape not in tuned_shapes(stack, self.capability))),
            "unpadded": np.asarray(float("triton" in stack)),
        }
        if stored.name == "fp8":
            stack, fitted_in = f"{stack} fp8_block", "fp8"
        else:
            fitted_in = "bf16"
        return self._price("MoE layer", moe_layer.FORM, stack, full, work["pairs"] > 0, stored, fitted_in)

    def collective(self, operation: str, num_bytes: ArrayLike, gpus: int, name: str = "") -> Part:
        """A collective among GPUs of one node; the bytes as nccl-tests count them."""
        sent = np.asarray(num_bytes, dtype=np.float64)
        work = {
            "bus_bytes": collective.bus_bytes(operation, sent, gpus),
            "gpus": np.asarray(float(gpus)),
            "int8_reduction": np.asarray(0.0),
        }
        stack = "torch send_recv" if operation == "send_recv" else f"nccl {operation}"
        part = self._price(name or operation, collective.FORM, stack, work, sent > 0)
        if operation != "all_reduce" or self.software.engine == "trtllm":
            return part
        custom = "vllm_vLLM_custom" if self.software.engine == "vllm" else "sglang_SGLang_CustomAllReduce"
        stack = f"{custom}_{'graph' if self.software.cuda_graphs else 'eager'} all_reduce"
        small = self._price(name or operation, collective.FORM, stack, work, sent > 0)
        return choose(sent <= CUSTOM_ALL_REDUCE_BYTES, small, part)

    def dispatch(self, operation: str, mode: str, work: Work) -> Part:
        """``dispatch`` or ``combine`` of expert parallelism (:mod:`moesim.costs.dispatch`), one node.

        Args:
            mode: ``normal`` or ``low_latency``.
            work: ``tokens, hidden, topk, experts, gpus``, and ``sms`` of normal kernels.
        """
        form = dispatch.NORMAL if mode == "normal" else dispatch.LOW_LATENCY
        narrow = mode == "low_latency" and operation == "dispatch"
        full = {
            "sms": np.asarray(float(dispatch.DEFAULT_SMS)),
            **work,
            "reached": dispatch.gpus_reached(work["experts"], work["topk"], work["gpus"]),
            "value_bytes": np.asarray(1.0 if narrow else 2.0),
        }
        return self._price(operation, form, f"{mode} {operation}", full, work["tokens"] > 0)

    def _attention(
        self, name: str, form: Form, stack: str, shape: attention.HeadShape, load: Work, kv_bytes: float
    ) -> Part:
        work = {**load, **shape.work(), "kv_bytes": np.asarray(kv_bytes)}
        return self._price(name, form, stack + (" fp8 kv" if kv_bytes < 2 else ""), work, load["batch"] > 0)

    def _decode_stack(self) -> str:
        """What vLLM takes: FlashAttention 3 on Hopper, FlashInfer's TensorRT-LLM kernels on Blackwell, else 2."""
        if 9 <= self.capability < 10:
            return "flash_attn_fa3"
        return "flashinfer_trtllmdecode" if 10 <= self.capability < 12 else "flash_attn"

    def _price(
        self,
        name: str,
        form: Form,
        stack: str,
        work: Work,
        present: NDArray[np.bool_],
        stored: Precision = _BF16,
        fitted_in: str = "bf16",
    ) -> Part:
        found = find(self.fits, form.operation, self.gpu.name, stack)
        if found is None:  # the class has constants over all stacks for every operation
            raise KeyError(f"no constants for {form.operation}")
        fit, how = found[0], cast(How, found[1])
        replaced = self._overrides(fit.constants)
        constants = {**fit.constants, **{name: number.value for name, number in replaced.items()}}
        terms = dict(corrected(form.terms(work, self._peaks(stored), constants), fit.profile, work))
        if form.operation in _SINGLE_KERNELS and not self.software.cuda_graphs:
            terms["launch"] = terms["launch"] + self.gpu.kernel_launch.value * (1 - GRAPH_LAUNCH)
        terms = {key: np.where(present, value, 0.0) for key, value in terms.items()}
        basis = Basis(form.operation, fit.stack, how, self._constants(form, fit, how, stored, replaced))
        shape = next(iter(terms.values())).shape
        extrapolated, reasons = outside_of(fit, work, shape, present)
        if self.gpu.compute_capability is None:
            extrapolated = np.ones(shape, dtype=bool)
            reasons = (*reasons, "not an NVIDIA GPU, and the constants are of NVIDIA GPUs")
        if stored.bits_per_weight != 16 and fitted_in != stored.name:
            extrapolated = np.ones(shape, dtype=bool)
            reasons = (*reasons, f"weights in {stored.name}; fitted in {fitted_in}")
        if form is collective.FORM and not self.gpu.nvlink:
            extrapolated = np.ones(shape, dtype=bool)
            reasons = (*reasons, "over PCIe; fitted over NVLink")
        return Part(name, terms, basis, extrapolated & np.broadcast_to(present, shape), reasons)

    def _peaks(self, stored: Precision) -> Peaks:
        peaks = peaks_of(self.gpu, arithmetic(self.gpu.compute, stored.compute))
        if peaks.link_bytes_per_s > 0:
            return peaks
        return replace(peaks, link_bytes_per_s=load_link(self.gpu.link).bandwidth_raw.value)

    def _constants(
        self, form: Form, fit: Fit, how: How, stored: Precision, replaced: Mapping[str, Sourced[float]]
    ) -> tuple[Constant, ...]:
        """The fit's constants or what the user put in their place, and the card's peaks.

        Peaks of a GPU that the constants were fitted on cancel, unless the user replaced them.
        """
        source = fit.source if how == "fitted" else f"{fit.source}; of the class, from {', '.join(fit.gpus)}"
        units = {constant.name: "s" if constant.unit == "us" else "1" for constant in form.constants}
        own = [
            card_constant(f"{form.operation}.{name}", replaced[name], units[name])
            if name in replaced
            else Constant(f"{form.operation}.{name}", value, units[name], source, fit.kind)
            for name, value in fit.constants.items()
        ]
        gpu, rate = self.gpu, arithmetic(self.gpu.compute, stored.compute)
        peaks = [("memory_bandwidth", gpu.memory_bandwidth, "B/s"), (f"compute.{rate}", gpu.compute[rate], "FLOP/s")]
        found = [card_constant(f"gpu.{name}", number, unit) for name, number, unit in peaks]
        if form.operation in _SINGLE_KERNELS and gpu.sm_count is not None:
            found.append(card_constant("gpu.sm_count", gpu.sm_count, "1"))
        return (*own, *(number for number in found if how == "class" or number.source == OVERRIDE))

    def _overrides(self, constants: Mapping[str, float]) -> dict[str, Sourced[float]]:
        """Constants that the user replaced on the card: their word goes before any fit."""
        gpu = self.gpu
        numbers = {
            "bandwidth_share": gpu.memory_efficiency,
            "arithmetic_share": gpu.compute_efficiency,
            "launch": gpu.kernel_launch,
        }
        return {name: number for name, number in numbers.items() if name in constants and number.source == OVERRIDE}


def outside_of(
    fit: Fit, work: Work, shape: tuple[int, ...], present: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Where a size of ``work`` lies outside of the range that constants were fitted to, and in words which."""
    outside, reasons = np.zeros(shape, dtype=bool), []
    for name, (low, high) in fit.fitted_range.items():
        if name in work and (beyond := ((work[name] < low) | (work[name] > high)) & present).any():
            outside = outside | beyond
            reasons.append(f"{name} not {low:g}" if low == high else f"{name} outside of {low:g} to {high:g}")
    return outside, tuple(reasons)
