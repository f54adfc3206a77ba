"""Every card loads, every number on it says where it is from, and none breaks a law."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from moesim import hardware
from moesim.errors import CardError
from moesim.hardware import KINDS, Sourced, available, build_node, read_card, weakest
from moesim.hardware.catalog import CARDS, FAMILIES
from moesim.hardware.specs import GpuSpec

LOADERS = {
    "gpu": hardware.load_gpu,
    "cpu": hardware.load_cpu,
    "link": hardware.load_link,
    "storage": hardware.load_storage,
    "network": hardware.load_network,
    "node": hardware.load_node_card,
    "machine": hardware.load_machine,
    "cluster": hardware.load_cluster,
}
#: Counts and ratios that make a machine what it is: how many, not how much.
SHAPES = (
    "gpu_count",
    "nodes",
    "gpus_per_node",
    "gpus_per_switch",
    "gpus_per_nic",
    "nodes_per_leaf",
    "oversubscription",
)
CARD_NAMES = [(family, name) for family, names in available().items() for name in names]
RTX_4090 = (CARDS / "gpu" / "rtx-4090.yaml").read_text()


def numbers_in(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of a card, by its path; a Sourced counts as one."""
    if isinstance(value, Sourced) or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, value
    elif isinstance(value, BaseModel | dict):
        for key, part in dict(value).items():
            yield from numbers_in(part, f"{path}.{key}")


@pytest.mark.parametrize(("family", "name"), CARD_NAMES)
def test_every_number_has_a_source_and_a_kind(family, name):
    numbers = dict(numbers_in(LOADERS[family](name)))
    assert numbers
    for path, number in numbers.items():
        if path.rpartition(".")[2] in SHAPES or path.startswith(".origin."):
            continue
        assert isinstance(number, Sourced), path
        assert number.kind in KINDS
        assert len(number.source) > 5, path


@pytest.mark.parametrize("name", available()["gpu"])
def test_a_gpu_names_cards_that_exist(name):
    gpu = hardware.load_gpu(name)
    hardware.load_link(gpu.link)
    if gpu.nvlink:
        hardware.load_network(gpu.nvlink)


@pytest.mark.parametrize("family", ["link", "network"])
def test_nothing_is_faster_than_its_line(family):
    for name in available()[family]:
        link = LOADERS[family](name)
        assert link.bandwidth.value <= link.bandwidth_raw.value, name
    for name in available()["link"]:
        link = hardware.load_link(name)
        if link.bandwidth_both_ways:
            assert link.bandwidth_both_ways.value <= link.bandwidth.value, name


@pytest.mark.parametrize("name", available()["gpu"])
def test_narrower_operands_are_never_slower(name):
    rates = {arithmetic: rate.value for arithmetic, rate in hardware.load_gpu(name).compute.items()}
    for wide, narrow in [("fp32", "fp16"), ("bf16", "fp8"), ("fp16", "int8"), ("fp8", "fp4"), ("int8", "int4")]:
        if wide in rates and narrow in rates:
            assert rates[wide] <= rates[narrow]


@pytest.mark.parametrize("name", available()["node"])
def test_every_node_can_be_built(name):
    card = hardware.load_node_card(name)
    node = build_node(name)
    assert (node.gpu.name, node.cpu.name, node.link.name) == (card.gpu, card.cpu, card.link)
    assert node.host_memory.value == card.host_memory.value
    if node.gpu.unified_memory:
        assert node.host_memory.value == node.gpu.memory.value


def test_values_are_si():
    gpu, link = hardware.load_gpu("rtx-4090"), hardware.load_link("pcie-4.0-x16")
    assert gpu.memory.value == 24 * 2**30
    assert gpu.memory_bandwidth.value == 1008e9
    assert gpu.compute["bf16"].value == 165.2e12
    assert gpu.price.cloud_low.value == pytest.approx(0.34 / 3600)
    assert link.latency.value == pytest.approx(6e-6)


def test_weakest_kind():
    assert weakest(["measured", "datasheet", "published"]) == "datasheet"
    assert weakest(["assumed", "measured"]) == "assumed"
    assert weakest(["measured"]) == "measured"


def test_every_family_has_cards_and_a_loader():
    assert set(FAMILIES) == set(LOADERS) == set(available())
    assert all(available().values())


def test_a_name_stands_in_one_family_only():
    names = [name for _, name in CARD_NAMES]
    assert len(names) == len(set(names))


MUTATIONS = {
    "no unit": ("value: 1008 GB/s", "value: 1008", "memory_bandwidth.value: a quantity needs a unit"),
    "wrong dimension": ("value: 1008 GB/s", "value: 1008 GB", "memory_bandwidth.value: unknown unit 'GB'"),
    "zero": ("value: 1008 GB/s", "value: 0 GB/s", "memory_bandwidth.value: input should be greater than 0"),
    "not finite": ("value: 1008 GB/s", "value: 1e400 GB/s", "must be finite"),
    "no source": ("  source: device-local", "  sauce: device-local", "memory_efficiency.source: is required"),
    "empty source": ("source: device-local copy", "source: ''\n  note: copy", "memory_efficiency.source: string"),
    "unknown kind": ("kind: datasheet", "kind: guessed", "memory.kind: "),
    "above one": ("value: 0.911", "value: 1.1", "memory_efficiency.value: input should be less than or equal to 1"),
    "quoted fraction": ("value: 0.911", "value: '0.911'", "memory_efficiency.value: input should be a valid number"),
    "unknown arithmetic": ("  bf16:", "  bf61:", "unknown type of arithmetic"),
    "narrow arithmetic only": (RTX_4090[RTX_4090.index("  bf16:") : RTX_4090.index("  int8:")], "", "must rate one of"),
    "misspelt key": ("kernel_launch:", "kernel_lunch:", "kernel_lunch: unknown key"),
    "another name": ("name: rtx-4090", "name: rtx-4080", "name: must be the file's name"),
    "not a mapping": (RTX_4090, "just text", "must be a mapping"),
    "an alias": ("title: NVIDIA", "notes: [&a x, *a]\ntitle: NVIDIA", "anchors and aliases are not supported"),
}


@pytest.mark.parametrize(("old", "new", "message"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_wrong_card_is_refused(tmp_path, old, new, message):
    assert old in RTX_4090
    path = tmp_path / "rtx-4090.yaml"
    path.write_text(RTX_4090.replace(old, new, 1))
    with pytest.raises(CardError) as raised:
        read_card(path, GpuSpec)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)
