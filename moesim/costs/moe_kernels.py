"""Kernels of fused MoE layers, by software stack: what each is called, and the rules of its tiles.

A *stack* is what a user chooses and what a fit is made for: ``"vllm triton"``, ``"trtllm cutlass"``, ``"sglang gen"``
(``gen``: TensorRT-LLM's generated kernels for Blackwell). Two older releases have stacks of their own.
"""

from __future__ import annotations

#: Stacks whose Triton kernels use two fixed tile sizes where no tuned ones ship (see ``moe_layer``), and which compute
#: the gate's product for layers without a gate, too: such layers take the time of three matrices.
FIXED_TILES = ("sglang triton", "vllm triton 0.14")
#: Stacks of older releases, whose benchmark routed very small batches of expert-parallel ranks differently.
OLD_RELEASES = ("vllm triton 0.14", "trtllm cutlass 1.0")
#: (experts of a rank, width) with tuned tiles in bf16: the software ships files named ``E=...,N=...,device_name=...``
#: for them (vLLM ``fused_moe/configs``, SGLang ``fused_moe_triton/configs``). Looked up there by name: on the A100 8 x
#: 7168, 4096, 3584, 1792 and 128 x 192 (vLLM only), not 8 x 14336, 128 x 384, 128 x 768, 16 x 1024; on the H100 8 x
#: 14336, 7168, 128 x 192, 384, 768 and 16 x 1024. Assumed: the rest, H200 and B200 as the H100, other GPUs none.
_AMPERE = frozenset((8, width) for width in (7168, 4096, 3584, 2048, 1792))
_HOPPER = _AMPERE | {(8, 14336), (128, 192), (128, 384), (128, 768), (16, 1024), (16, 2048)}


def tuned_shapes(stack: str, compute_capability: float) -> frozenset[tuple[int, int]]:
    """(experts of a rank, width) for which a stack ships tuned tiles."""
    if compute_capability in (9.0, 10.0):
        return _HOPPER
    if compute_capability == 8.0:
        return _AMPERE if stack.startswith("sglang") else _AMPERE | {(128, 192)}
    return frozenset()


def moe_stack(backend: str, kernel_source: str = "", compute_capability: float = 9.0) -> str:
    """The stack behind a backend and a kernel's name; without a name, what the backend picks on that GPU in bf16."""
    source = kernel_source.lower()
    if not source:
        blackwell = 10 <= compute_capability < 12  # the generated kernels are for data-centre parts
        kernel = "cutlass" if backend == "trtllm" else "gen" if blackwell else "triton"
    elif "deepgemm" in source:
        kernel = "deepgemm"
    elif "trtllm_moe" in source or "trtllmbf16" in source or "trtllmfp8" in source:
        kernel = "gen"
    elif "triton" in source or "fused_moe" in source:
        kernel = "triton"
    else:
        kernel = "cutlass"
    release = {"vllm_fused_moe": " 0.14", "moe_torch_flow": " 1.0"}.get(source, "")
    return f"{backend} {kernel}{release}"
