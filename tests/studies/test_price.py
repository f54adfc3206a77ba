"""One operation priced, with its terms and how far they can be trusted."""

import pytest

from moesim.errors import CardError
from moesim.studies.price import PRICED, price

LAYER = {"tokens": 16, "hidden": 2048, "intermediate": 768, "experts": 128, "topk": 8, "backend": "vllm"}
ATTENTION = {"batch": 4, "seq": 1024, "heads": 32, "kv_heads": 4, "head_dim": 128}
ALL_TO_ALL = {"tokens": 16, "hidden": 7168, "topk": 8, "experts": 256}
SIZES = {
    "moe-layer": LAYER,
    "gemm": {"m": 16, "n": 4096, "k": 4096},
    "attention-decode": ATTENTION,
    "attention-prefill": ATTENTION,
    "dispatch": ALL_TO_ALL,
    "combine": ALL_TO_ALL,
}
COLLECTIVE = {"gpus": 8, "bytes": 2**20}


@pytest.mark.parametrize("gpu", ["h100-sxm", "b200-sxm", "gb200"])
@pytest.mark.parametrize("operation", PRICED)
def test_the_terms_add_up(operation, gpu):
    found = price(operation, gpu, SIZES.get(operation, COLLECTIVE))
    assert found.total_s == pytest.approx(sum(found.terms.values()))
    assert all(seconds >= 0 for seconds in found.terms.values())
    assert 1e-6 < found.total_s < 1e-2


def test_time_is_measured_only_on_a_fitted_gpu_inside_the_fitted_range():
    inside = price("moe-layer", "h100-sxm", LAYER)
    assert (inside.constants, inside.kind, inside.extrapolated) == ("fitted", "measured", [])
    outside = price("moe-layer", "h100-sxm", LAYER | {"hidden": 20480})
    assert outside.kind == "assumed"
    assert outside.extrapolated == ["hidden 20480 outside of 2048 to 6144"]
    wide = price("moe-layer", "h100-sxm", LAYER | {"ep": 16})
    assert wide.extrapolated == ["gpus 16 outside of 1 to 8"]
    other = price("moe-layer", "rtx-4090", LAYER)
    assert (other.constants, other.kind) == ("class", "datasheet")


def test_known_routing_replaces_the_assumed_one():
    few = price("moe-layer", "h100-sxm", LAYER, distinct_experts=16)
    many = price("moe-layer", "h100-sxm", LAYER, distinct_experts=128)
    assert few.sizes["distinct"] == 16
    assert many.terms["expert weights"] == pytest.approx(8 * few.terms["expert weights"], rel=0.3)


def test_wrong_input_is_told():
    with pytest.raises(CardError, match="unknown operation 'gem'"):
        price("gem", "h100-sxm", {})
    with pytest.raises(CardError, match="needs k"):
        price("gemm", "h100-sxm", {"m": 1, "n": 1})
    with pytest.raises(CardError, match="no card with a link between GPUs"):
        price("all-reduce", "l40s", COLLECTIVE)


def test_a_gpu_that_was_never_fitted_is_near_its_measurements(shared_data):
    pytest.importorskip("pyarrow", reason="needs moesim[tables]")
    from moesim.studies.measured.table import read_table

    table = read_table(shared_data / "measured" / "moe_activated.parquet")
    errors = []
    for row in range(table.size):
        sizes = LAYER | {"tokens": float(table.number("tokens")[row]), "kernel_source": "triton"}
        distinct = float(table.number("activated_experts")[row])
        found = price("moe-layer", "rtx-pro-6000-server", sizes, distinct)
        errors.append(abs(found.total_s * 1e6 / table.number("latency_us")[row] - 1))
    assert sum(errors) / len(errors) < 0.18
