"""Machines from nodes, parts and overrides; and everything wrong with them said at once."""

import pytest

from moesim.errors import CardError
from moesim.hardware import build_node

DESKTOP = "desktop-rtx4090-ddr5-64g-nvme4"


def faults(*args, **kwargs) -> dict[str, tuple[str, str]]:
    with pytest.raises(CardError) as raised:
        build_node(*args, **kwargs)
    return {fault.place: (fault.message, fault.hint) for fault in raised.value.faults}


def test_a_ready_node():
    node = build_node(DESKTOP)
    assert node.name == DESKTOP
    assert (node.gpu.name, node.link.name) == ("rtx-4090", "pcie-4.0-x16")
    assert node.storage is not None
    assert node.host_memory.value == 64 * 2**30


def test_parts_replace_those_of_the_node():
    node = build_node(DESKTOP, storage="ufs-4.0", host_memory="16 GiB")
    assert node.name == f"{DESKTOP}, ufs-4.0, 16 GiB"
    assert (node.gpu.name, node.storage.name) == ("rtx-4090", "ufs-4.0")
    assert (node.host_memory.value, node.host_memory.kind) == (16 * 2**30, "assumed")


def test_a_replaced_gpu_brings_its_link_unless_one_is_named():
    assert build_node(DESKTOP, gpu="rtx-5090").link.name == "pcie-5.0-x16"
    assert build_node(DESKTOP, gpu="rtx-5090", link="pcie-4.0-x16").link.name == "pcie-4.0-x16"
    assert build_node(DESKTOP, cpu="epyc-9654-ddr5-4800").link.name == "pcie-4.0-x16"


def test_parts_alone_make_a_node():
    node = build_node(gpu="h100-pcie", cpu="epyc-9654-ddr5-4800", host_memory="384 GB")
    assert node.name == "h100-pcie, epyc-9654-ddr5-4800, 384 GB"
    assert node.link.name == "pcie-5.0-x16"
    assert node.storage is None


def test_overrides_are_assumed_and_say_so():
    overrides = {
        "gpu.memory_bandwidth": "300 GB/s",
        "gpu.compute.bf16": "3 TFLOPS",
        "gpu.memory_efficiency": 0.5,
        "gpu.price.msrp": "5 USD",
        "cpu.cores": 4,
        "link.bandwidth_both_ways": "1 GB/s",
        "storage.read_latency": "1 ms",
    }
    node = build_node(DESKTOP, overrides=overrides)
    plain = build_node(DESKTOP)
    changed = [
        (node.gpu.memory_bandwidth, 300e9),
        (node.gpu.compute["bf16"], 3e12),
        (node.gpu.memory_efficiency, 0.5),
        (node.gpu.price.msrp, 5.0),
        (node.cpu.cores, 4),
        (node.link.bandwidth_both_ways, 1e9),
        (node.storage.read_latency, 1e-3),
    ]
    for number, value in changed:
        assert (number.value, number.kind, number.source) == (value, "assumed", "scenario override")
    assert node.gpu.compute["fp16"] == plain.gpu.compute["fp16"]
    assert plain.gpu.memory_bandwidth.value == 1008e9


def test_a_precision_that_the_card_lacks_can_be_given():
    node = build_node(DESKTOP, overrides={"gpu.compute.fp4": "600 TFLOPS"})
    assert node.gpu.compute["fp4"].value == 600e12


def test_all_faults_come_at_once():
    found = faults(
        gpu="rtx-409",
        storage="samsung-990-pro",
        host_memory="64 GB3",
        overrides={"cpux.cores": 4, "gpu.memory_bandwidth": "300"},
    )
    assert set(found) == {"gpu", "cpu", "storage", "host_memory", "cpux.cores"}
    assert found["gpu"] == ("unknown name 'rtx-409'", "did you mean 'rtx-4090'?")
    assert found["cpu"][0] == "is required without a ready node"
    assert found["cpux.cores"][1] == "did you mean 'cpu'?"


def test_faults_of_overrides():
    overrides = {
        "gpu.memory_bandwidht": "300 GB/s",
        "gpu.memory_efficiency": 1.5,
        "gpu.compute": "3 TFLOPS",
        "gpu.compute.bf17": "3 TFLOPS",
        "gpu.name": "mine",
        "gpu.link": "pcie-4.0-x16",
        "gpu": "rtx-3090",
        "link.bandwidth": "50",
        "link.bandwidth.value": "50 GB/s",
        "link.latency": "5 GB/s",
        "storage.iops": 5,
    }
    found = faults(DESKTOP, overrides=overrides)
    assert set(found) == set(overrides)
    assert found["gpu.memory_bandwidht"][1] == "did you mean 'memory_bandwidth'?"
    assert "several parts" in found["gpu.compute"][0]
    assert found["gpu.compute.bf17"] == ("unknown type of arithmetic (got 'bf17')", "did you mean 'bf16'?")
    assert found["link.bandwidth"][0].startswith("a quantity needs a unit")
    assert found["link.bandwidth.value"][1] == "leave out '.value'"


def test_what_is_missing_is_named():
    assert set(faults()) == {"gpu", "cpu", "host_memory"}
    found = faults(gpu="t4", cpu="epyc-7763-ddr4-3200", host_memory="8 GiB", overrides={"storage.iops": "5 IOPS"})
    assert found == {"storage.iops": ("this machine has no storage", "name one")}


def test_an_unknown_node_gets_the_nearest():
    assert faults("server-h100")["node"] == ("unknown name 'server-h100'", "did you mean 'server-h100-sxm'?")


@pytest.mark.parametrize("size", ["", "64", "0 GiB", "-1 GiB", "nan GiB", "1e400 GiB", "64 GiB/s"])
def test_a_wrong_size_of_memory(size):
    assert set(faults(DESKTOP, host_memory=size)) == {"host_memory"}
