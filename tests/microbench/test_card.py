"""A machine's card: which numbers are called measured, and which are not."""

from __future__ import annotations

import pytest
import yaml
from microbench_builders import result_of, rows_of

from moesim.errors import MicrobenchError
from moesim.hardware import MachineSpec, load_gpu, read_card
from moesim.microbench.card import card_text, shipped_gpu
from moesim.microbench.schema import Gpu

COPY = {"latency": 5e-6, "per_segment": 3e-6, "bandwidth": 55e9, "ramp": 4e-6, "knee": 2e5}
CACHED = {"latency": 3e-6, "bandwidth": 2.9e12, "cache_bandwidth": 6e12, "cache": 4e7}
STREAM = {"latency": 2e-6, "one_thread": 12e9, "all_threads": 60e9, "sharpness": 3.0}
REQUESTS = {"latency": 8e-5, "one_stream": 2e9, "iops": 9e4, "bandwidth": 6e9, "sharpness": 4.0}
CPU = {"latency": 8e-6, "one_thread": 12e9, "all_threads": 60e9, "unpack": 16e9, "rate": 1.5e11, "sharpness": 3.0}
H100 = Gpu(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    cc="9.0",
    sm_count=132,
    memory_bytes=80 * 2**30,
    l2_bytes=50 * 2**20,
    driver="580.1",
    cuda_runtime=13000,
    async_engines=3,
    ecc=True,
    pcie_gen_max=5,
    pcie_width_max=16,
)


def host_rows():
    experts = rows_of(
        "cpu_expert",
        CPU,
        keep=lambda case: case["impl"] in ("avx2", "avx2_int4"),
        impl=lambda case: case["impl"],
        bytes=lambda case: 6.0 * case["hidden"] * case["inter"],
    )
    return [*rows_of("dram", STREAM), *rows_of("stage", STREAM), *rows_of("file", REQUESTS), *experts]


@pytest.fixture
def carded(tmp_path):
    """A function: rows and GPUs to the card that is read back."""

    def card(rows, gpus=()):
        path = tmp_path / "result.json"
        path.write_text(result_of(rows, gpus).to_json())
        (tmp_path / "card.yaml").write_text(card_text(path, "card"))
        return read_card(tmp_path / "card.yaml", MachineSpec)

    return card


def test_parts_of_a_host(carded):
    card = carded(host_rows())
    assert (card.gpu, card.link) == (None, None)
    assert card.cpu.memory_bandwidth.value == pytest.approx(55.8e9, rel=0.03)  # (96^-3 + 60^-3)^(-1/3)
    assert card.cpu.compute["bf16"].value == pytest.approx(8 * 1.5e11, rel=0.05)
    assert card.storage.read_bandwidth.value == pytest.approx(6e9, rel=0.05)
    assert card.storage.iops.value == pytest.approx(9e4, rel=0.05)
    assert card.cpu.thread_copy.value == pytest.approx(11.97e9, rel=0.03)  # (12^-3 + 60^-3)^(-1/3)
    assert card.cpu.memory_bandwidth.kind == "measured"
    assert "dram read" in card.cpu.memory_bandwidth.source


def test_parts_of_a_gpu_keep_the_kind_of_what_was_not_measured(carded):
    card = carded([*host_rows(), *rows_of("copy", COPY), *rows_of("hbm", CACHED)], [H100])
    shipped = load_gpu("h100-sxm")
    assert card.link.bandwidth.value == pytest.approx(55e9, rel=0.02)
    assert (card.link.bandwidth.kind, card.link.bandwidth_raw.kind) == ("measured", "datasheet")
    assert card.link.bandwidth_raw.value == pytest.approx(63e9, rel=0.01)
    assert card.gpu.memory_efficiency.kind == "measured"
    assert card.gpu.memory_efficiency.value == pytest.approx(2.9e12 / shipped.memory_bandwidth.value, rel=0.02)
    for name in ("memory_bandwidth", "compute_efficiency", "kernel_launch"):  # nothing measured them
        assert getattr(card.gpu, name) == getattr(shipped, name)


def test_what_transfers_take_beside_their_bytes(carded):
    kinds = {"copy pageable": {"latency": 9e-6, "bandwidth": 11e9}, "pin register": {"latency": 1e-5, "bandwidth": 4e9}}
    rows = [*host_rows(), *rows_of("copy", COPY), *rows_of("copy_host_kind", kinds), *rows_of("stage", STREAM)]
    card = carded(rows, [H100])
    assert card.link.gap.value == pytest.approx(3e-6, rel=0.02)
    assert card.link.pageable_bandwidth.value == pytest.approx(11e9, rel=0.02)
    assert card.link.register_bandwidth.value == pytest.approx(4e9, rel=0.02)
    assert card.cpu.thread_copy.value == pytest.approx(12e9, rel=0.05)
    assert card.link.gap.kind == card.cpu.thread_copy.kind == "measured"


def test_without_rows_for_it_a_part_is_left_out(carded):
    card = carded(rows_of("file", REQUESTS), [H100])
    assert (card.cpu, card.link) == (None, None)
    assert card.gpu.memory_efficiency.kind == load_gpu("h100-sxm").memory_efficiency.kind


@pytest.mark.parametrize(
    ("device", "gib", "card"),
    [
        ("NVIDIA H100 80GB HBM3", 79.1, "h100-sxm"),
        ("NVIDIA H100 PCIe", 79.6, "h100-pcie"),
        ("NVIDIA H100 NVL", 93.6, None),
        ("NVIDIA H200", 139.8, "h200-sxm"),
        ("NVIDIA B200", 178.4, "b200-sxm"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100-80gb-sxm"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb-sxm"),
        ("NVIDIA A100-PCIE-40GB", 39.4, None),
        ("NVIDIA GeForce RTX 4090", 23.5, "rtx-4090"),
        ("NVIDIA GeForce RTX 3060", 11.8, "rtx-3060-12gb"),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 5.8, "rtx-3060-laptop-6gb"),
        ("NVIDIA RTX A6000", 47.5, "rtx-a6000"),
        ("A card that nobody ships", 8.0, None),
    ],
)
def test_the_shipped_card_of_a_device(device, gib, card):
    found = shipped_gpu(H100.model_copy(update={"name": device, "memory_bytes": int(gib * 2**30)}))
    assert (found.name if found else None) == card


def test_the_same_result_gives_the_same_bytes(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(result_of(host_rows()).to_json())
    text = card_text(path, "card")
    assert card_text(path, "card") == text
    assert "!!" not in text  # plain YAML
    assert yaml.safe_load(text)["origin"]["unfit_rows"] == 0


def test_a_result_without_rows_has_no_card(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(result_of([]).to_json())
    with pytest.raises(MicrobenchError, match="of 0 rows none"):
        card_text(path, "card")
