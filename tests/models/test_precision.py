import pytest

from moesim.errors import CardError
from moesim.models import PRECISIONS, get_precision

#: Bytes of a block of weights with its scales, worked out from the formats' definitions.
BLOCKS = {
    "bf16": (2, 1),
    "fp8": (128 * 128 + 4, 128 * 128),
    "int4": (64 + 2, 128),
    "int4-g64": (32 + 2, 64),
    "int4-g64-bias": (32 + 2 + 2, 64),
    "mxfp4": (16 + 1, 32),
    "nvfp4": (8 + 1, 16),
    "q2_k": (256 // 4 + 16 + 4, 256),
    "q3_k": (256 // 8 + 256 // 4 + 12 + 2, 256),
    "q4_0": (16 + 2, 32),
    "q4_k": (128 + 12 + 4, 256),
    "q5_k": (128 + 32 + 12 + 4, 256),
    "q6_k": (128 + 64 + 16 + 2, 256),
    "q8_0": (32 + 2, 32),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_bits_are_exact_for_whole_blocks(name):
    num_bytes, num_weights = BLOCKS[name]
    assert get_precision(name).bytes_for(num_weights * 1000) == num_bytes * 1000


def test_bytes_are_rounded_up():
    assert get_precision("q4_0").bytes_for(1) == 1
    assert get_precision("int4").bytes_for(129) == 67


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
def test_every_precision_says_where_its_bits_are_from(precision):
    assert precision.source
    assert precision.description
    assert 1 < precision.bits_per_weight <= 32


def test_an_unknown_precision_is_one_fault_with_a_hint():
    with pytest.raises(CardError) as raised:
        get_precision("mxpf4")
    (fault,) = raised.value.faults
    assert "'mxpf4'" in fault.message
    assert fault.hint == "did you mean 'mxfp4'?"
