"""One operation priced, with its terms and how far they can be trusted."""

import pytest

from moesim.cli.app import app
from moesim.errors import CardError
from moesim.studies.price import MEASURED, OPERATIONS_PRICED, price
from moesim.studies.priced_parts import PARTS

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
@pytest.mark.parametrize("operation", MEASURED)
def test_the_terms_add_up(operation, gpu):
    found = price(operation, {"gpu": gpu, **SIZES.get(operation, COLLECTIVE)})
    assert found.total_s == pytest.approx(sum(found.terms.values()))
    assert all(seconds >= 0 for seconds in found.terms.values())
    assert 1e-6 < found.total_s < 1e-2


def test_time_is_measured_only_on_a_fitted_gpu_inside_the_fitted_range():
    inside = price("moe-layer", {"gpu": "h100-sxm"} | LAYER)
    assert (inside.constants, inside.kind, inside.extrapolated) == ("fitted", "measured", [])
    outside = price("moe-layer", {"gpu": "h100-sxm"} | LAYER | {"hidden": 20480})
    assert outside.kind == "assumed"
    assert outside.extrapolated == ["hidden 20480 outside of 2048 to 6144"]
    wide = price("moe-layer", {"gpu": "h100-sxm"} | LAYER | {"ep": 16})
    assert wide.extrapolated == ["gpus 16 outside of 1 to 8"]
    other = price("moe-layer", {"gpu": "rtx-4090"} | LAYER)
    assert (other.constants, other.kind) == ("class", "datasheet")


def test_known_routing_replaces_the_assumed_one():
    few = price("moe-layer", {"gpu": "h100-sxm"} | LAYER, distinct_experts=16)
    many = price("moe-layer", {"gpu": "h100-sxm"} | LAYER, distinct_experts=128)
    assert few.sizes["distinct"] == 16
    assert many.terms["expert weights"] == pytest.approx(8 * few.terms["expert weights"], rel=0.3)


def test_wrong_input_is_told():
    with pytest.raises(CardError, match="unknown operation 'gem'"):
        price("gem", {})
    with pytest.raises(CardError, match="needs k"):
        price("gemm", {"gpu": "h100-sxm", "m": 1, "n": 1})
    with pytest.raises(CardError, match="no card with a link between GPUs"):
        price("all-reduce", {"gpu": "l40s"} | COLLECTIVE)

    with pytest.raises(CardError, match="unknown size 'hiden'\n    hint: did you mean 'hidden'"):
        price("moe-layer", {"gpu": "h100-sxm", "hiden": 2048} | LAYER)
    with pytest.raises(CardError, match="tokens must be a number"):
        price("moe-layer", {"gpu": "h100-sxm"} | LAYER | {"tokens": "many"})
    with pytest.raises(CardError, match="unknown path 'mapp'"):
        price("flash-read", {"bytes": 1, "storage": "sata-ssd", "path": "mapp"})


ON_GPU = {"gpu": "h100-sxm", "model": "deepseek-v2-lite", "tokens": 4}
PART_SIZES = {
    "transfer": {"bytes": 26e6, "link": "pcie-4.0-x16"},
    "flash-read": {"bytes": 6.16e6, "storage": "samsung-980-pro-2tb"},
    "cpu-expert": {"cpu": "ryzen-5-5600-ddr4-3200", "model": "qwen3-30b-a3b", "tokens": 1},
    "dequantise": {"gpu": "h100-sxm", "weights": 4_718_592, "precision": "int4"},
}


@pytest.mark.parametrize("operation", PARTS)
def test_parts_add_up_and_say_what_they_rest_on(operation):
    found = price(operation, PART_SIZES.get(operation, ON_GPU))
    assert found.total_s == pytest.approx(sum(found.terms.values()))
    assert all(seconds >= 0 for seconds in found.terms.values())
    assert 1e-6 < found.total_s < 1e-2
    assert found.rests_on
    assert all(constant.source for constant in found.rests_on)


def test_parts_by_hand():
    def total_us(operation, **sizes):
        return price(operation, PART_SIZES.get(operation, ON_GPU) | sizes).total_s * 1e6

    assert total_us("transfer") == pytest.approx(6 + 1000)  # 26 MB at 26 GB/s
    assert total_us("flash-read") == pytest.approx(45 + 1000)  # 6.16 MB at 0.88 x 7 GB/s
    # 9,437,184 B of weights and 11,264 B of activations at 0.85 x 51.2 GB/s, 5 us to start
    assert total_us("cpu-expert") == pytest.approx(5 + 9_448_448 / 43.52e9 * 1e6)
    # two threads draw 28 GB/s at most, of which 0.85
    assert total_us("cpu-expert", threads=2) == pytest.approx(5 + 9_448_448 / 23.8e9 * 1e6)
    # 4,718,592 weights: 4.125 bits read and 16 written, at 0.878 x 3.35 TB/s, after a launch of 2.5 us
    assert total_us("dequantise") == pytest.approx(2.5 + 4_718_592 * 20.125 / 8 / (0.878 * 3.35e12) * 1e6)
    # norms of 4 tokens: 2 bytes for 8 x 2048 values of two norms (each reads two, writes two), and the 16 x 192 of the
    # queries there and back; three launches of a graph
    moved = 2 * 4 * (8 * 2048 + 2 * 16 * 192)
    assert total_us("norms") == pytest.approx(3 * 0.52 * 2.5 + moved / (0.878 * 3.35e12) * 1e6)
    # sampling: 12 bytes for each of 4 x 102,400 logits, 4 kernels
    assert total_us("sampling") == pytest.approx(4 * 0.52 * 2.5 + 12 * 4 * 102_400 / (0.878 * 3.35e12) * 1e6)


def test_the_command_takes_sizes_as_options(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            app(["cost", *words])
        return ended.value.code, capsys.readouterr()

    code, shown = run("transfer", "--bytes", "26 MB", "--link=pcie-4.0-x16", "--both-ways")
    assert code == 0
    # 26 MB at 18.6 GB/s, and 6 us
    assert "1.40 ms" in shown.out
    assert "link.bandwidth_both_ways" in shown.out
    _, shown = run("--help")
    assert all(operation in " ".join(shown.out.split()) for operation in OPERATIONS_PRICED)


def test_a_gpu_that_was_never_fitted_is_near_its_measurements(shared_data):
    pytest.importorskip("pyarrow", reason="needs moesim[tables]")
    from moesim.studies.measured.table import read_table

    table = read_table(shared_data / "measured" / "moe_activated.parquet")
    errors = []
    for row in range(table.size):
        sizes = LAYER | {
            "gpu": "rtx-pro-6000-server",
            "tokens": float(table.number("tokens")[row]),
            "kernel_source": "triton",
        }
        distinct = float(table.number("activated_experts")[row])
        found = price("moe-layer", sizes, distinct)
        errors.append(abs(found.total_s * 1e6 / table.number("latency_us")[row] - 1))
    assert sum(errors) / len(errors) < 0.18
