"""How weights are stored: bits per weight with all scales, and the arithmetic that kernels do with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moesim.errors import CardError, nearest


@dataclass(frozen=True)
class Precision:
    """A storage format of weights.

    ``bits_per_weight`` counts scales and offsets, exactly unless ``typical``. ``compute`` is the type of the
    operands that a GPU kernel multiplies (``bf16``, ``fp8``, ...), after widening the weights where they are narrower.
    """

    name: str
    bits_per_weight: float
    compute: str
    description: str
    source: str
    typical: bool = False

    def bytes_for(self, num_weights: int) -> int:
        """Bytes that so many weights take, rounded up."""
        return math.ceil(num_weights * self.bits_per_weight / 8)


@dataclass(frozen=True)
class Precisions:
    """How a model's weights are stored, and bytes of an element of its KV cache."""

    experts: Precision
    dense: Precision
    kv_bytes_per_element: float = 2.0


def get_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        CardError: no such precision; the hint suggests the nearest name.
    """
    if name not in PRECISIONS:
        raise CardError.of("", f"unknown precision {name!r}", nearest(name, PRECISIONS))
    return PRECISIONS[name]


def _grouped(name: str, bits: int, group: int, extra_bits: int, description: str, source: str) -> Precision:
    """Integers of ``bits`` with ``extra_bits`` of scale and offset per ``group`` weights, widened to bf16."""
    return Precision(name, bits + extra_bits / group, "bf16", description, source)


def _gguf(name: str, block_bytes: int, block_weights: int) -> Precision:
    """A block type of llama.cpp. Its kernels also multiply in int8; priced at the 16-bit rate, the cautious one."""
    source = f"ggml-common.h of ggml-org/llama.cpp: blocks of {block_weights} weights in {block_bytes} bytes"
    return Precision(name, block_bytes * 8 / block_weights, "bf16", f"GGUF {name.upper()}", source)


_DEFINITION = "by definition"
_ALL = (
    Precision("fp32", 32.0, "fp32", "single precision", _DEFINITION),
    Precision("bf16", 16.0, "bf16", "bfloat16", _DEFINITION),
    Precision("fp16", 16.0, "fp16", "half precision", _DEFINITION),
    Precision(
        "fp8", 8 + 32 / 128**2, "fp8", "E4M3 with an FP32 scale per block of 128 x 128", "DeepSeek-V3, arXiv 2412.19437"
    ),
    Precision("fp8-tensor", 8.0, "fp8", "E4M3 with one scale per tensor, which is left out", _DEFINITION),
    Precision("int8", 8.0, "int8", "one scale per output channel, which is left out (below 0.2 %)", _DEFINITION),
    _grouped("int8-g128", 8, 128, 16, "FP16 scale per 128 weights", "8 + 16/128"),
    _grouped("int4", 4, 128, 16, "FP16 scale per 128 weights (symmetric GPTQ)", "4 + 16/128"),
    _grouped("int4-zp", 4, 128, 16 + 4, "FP16 scale and 4-bit zero point per 128 weights (AWQ)", "4 + 20/128"),
    _grouped("int4-g64", 4, 64, 16, "FP16 scale per 64 weights", "4 + 16/64"),
    _grouped("int4-g64-bias", 4, 64, 32, "FP16 scale and offset per 64 weights (MLX)", "4 + 32/64"),
    _grouped("int4-g32", 4, 32, 16, "FP16 scale per 32 weights", "4 + 16/32"),
    _grouped("int3", 3, 128, 16, "FP16 scale per 128 weights", "3 + 16/128"),
    _grouped("int2", 2, 64, 16 + 2, "FP16 scale and 2-bit zero point per 64 weights (HQQ)", "2 + 18/64"),
    _grouped("mxfp4", 4, 32, 8, "E2M1 with an E8M0 scale per 32 weights", "OCP Microscaling Formats 1.0: 4 + 8/32"),
    Precision(
        "nvfp4", 4 + 8 / 16, "fp4", "E2M1 with an E4M3 scale per 16 weights; the tensor's scale is left out", "4 + 8/16"
    ),
    _gguf("q2_k", 84, 256),
    _gguf("q3_k", 110, 256),
    _gguf("q4_0", 18, 32),
    _gguf("q4_1", 20, 32),
    _gguf("q4_k", 144, 256),
    _gguf("q5_0", 22, 32),
    _gguf("q5_1", 24, 32),
    _gguf("q5_k", 176, 256),
    _gguf("q6_k", 210, 256),
    _gguf("q8_0", 34, 32),
    _gguf("iq1_s", 50, 256),
    _gguf("iq1_m", 56, 256),
    _gguf("iq2_xxs", 66, 256),
    _gguf("iq2_xs", 74, 256),
    _gguf("iq2_s", 82, 256),
    _gguf("iq3_xxs", 98, 256),
    _gguf("iq3_s", 110, 256),
    _gguf("iq4_nl", 18, 32),
    _gguf("iq4_xs", 136, 256),
    Precision(
        "q4_k_m", 4.85, "bf16", "GGUF file of Q4_K with some Q6_K tensors", "typical file average, from memory", True
    ),
)
PRECISIONS: dict[str, Precision] = {precision.name: precision for precision in _ALL}
