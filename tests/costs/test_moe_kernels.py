"""Which kernels a software stack runs."""

import pytest

from moesim.costs.moe_kernels import moe_stack, tuned_shapes


@pytest.mark.parametrize(
    ("backend", "source", "capability", "stack"),
    [
        ("vllm", "vllm_unquantizedfusedmoe_triton_tritonexperts", 9.0, "vllm triton"),
        ("vllm", "vllm_unquantizedfusedmoe_flashinfer_trtllm_trtllmbf16experts", 10.0, "vllm gen"),
        ("vllm", "vllm_fused_moe", 8.0, "vllm triton 0.14"),
        ("trtllm", "moe_torch_flow_nongated", 9.0, "trtllm cutlass"),
        ("trtllm", "moe_torch_flow", 8.0, "trtllm cutlass 1.0"),
        ("trtllm", "deepgemm", 10.0, "trtllm deepgemm"),
        ("sglang", "sglang_fused_moe_triton", 9.0, "sglang triton"),
        ("vllm", "", 9.0, "vllm triton"),
        ("vllm", "", 10.0, "vllm gen"),
        ("vllm", "", 12.0, "vllm triton"),
    ],
)
def test_the_stack_follows_from_backend_kernel_and_gpu(backend, source, capability, stack):
    assert moe_stack(backend, source, capability) == stack


def test_tuned_tiles_are_known_by_experts_and_width():
    assert (8, 7168) in tuned_shapes("sglang triton", 8.0)
    assert (128, 192) not in tuned_shapes("sglang triton", 8.0)
    assert (128, 192) in tuned_shapes("vllm triton 0.14", 8.0)
    assert (128, 192) in tuned_shapes("sglang triton", 9.0)
    assert not tuned_shapes("sglang triton", 8.9)
