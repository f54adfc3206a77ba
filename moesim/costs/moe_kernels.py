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
#: (experts of a rank, width) with tuned tiles in bf16, by stack. Assumed: files named ``E=...,N=...`` stand in the
#: software's folders of tuned tiles for most of them; where none was seen, the step of the fixed tiles is missing in
#: the measurements (SGLang: E=128 and E=16 on Hopper and Blackwell; vLLM: E=128 also on Ampere).
_MIXTRAL = frozenset((8, width) for width in (14336, 7168, 4096, 3584, 2048, 1792))
_MANY = frozenset({(128, 192), (128, 384), (128, 768), (16, 1024), (16, 2048)})


def tuned_shapes(stack: str, compute_capability: float) -> frozenset[tuple[int, int]]:
    """(experts of a rank, width) for which a stack ships tuned tiles."""
    if stack == "sglang triton" and compute_capability < 9:
        return _MIXTRAL
    return _MIXTRAL | _MANY


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
