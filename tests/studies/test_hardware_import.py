"""Outputs of nccl-tests and nvbandwidth as tables and cards."""

import json

import pytest

from moesim.errors import CardError, FileError
from moesim.hardware import read_card
from moesim.hardware.nvbandwidth import read_nvbandwidth
from moesim.hardware.specs import LinkSpec, NetworkSpec
from moesim.studies.hardware_import import (
    card_from_nvbandwidth,
    collectives_table,
    network_card_from_nccl,
    write_table,
)
from moesim.studies.measured.nccl_tests import read_nccl_tests

ALL_REDUCE = """\
NCCL_ALGO=TREE ./all_reduce_perf -g 2 -b 8 -e 128M -f 2
# nThread 1 nGpus 2 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5 iters: 20 validation: 1 graph: 0
#
# Using devices
#  Rank  0 Group  0 Pid  28307 on      gpu59 device  0 [0x16] NVIDIA H100
#  Rank  1 Group  0 Pid  28307 on      gpu60 device  0 [0x27] NVIDIA H100
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
           8             2     float     sum      -1    42.56    0.00    0.00      0    41.20    0.00    0.00      0
   134217728      33554432     float     sum      -1   1042.5  128.74  128.74      0   1040.1  129.04  129.04      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 64.4
"""
ALL_TO_ALL = """\
# Collective test starting: alltoall_perf
#   Rank  0 Pid   1320 on node-a device  0 [0x00] NVIDIA H100
#   Rank  1 Pid   1321 on node-a device  1 [0x00] NVIDIA H100
   268435456       1048576     float           520935    0.52    0.51  0e+00   519562    0.52    0.51  1e+00
"""
NVBANDWIDTH = """\
nvbandwidth Version: v0.4
Running host_to_device_memcpy_ce.
memcpy CE CPU(row) -> GPU(column) bandwidth (GB/s)
           0         1
 0     26.03     25.94

SUM host_to_device_memcpy_ce 51.97

Running device_to_device_memcpy_read_ce.
memcpy CE GPU(row) -> GPU(column) bandwidth (GB/s)
           0         1
 0       N/A    276.07
 1    275.40       N/A

SUM device_to_device_memcpy_read_ce 551.47

Waived.
"""


def saved(tmp_path, text, name="out.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_nccl_rows(tmp_path):
    rows = read_nccl_tests(saved(tmp_path, ALL_REDUCE))
    assert [(row.num_bytes, row.latency_us, row.bus_gb_per_s) for row in rows] == [
        (8, 42.56, 0.0),
        (134217728, 1042.5, 128.74),
    ]
    assert {(row.operation, row.dtype, row.gpus, row.nodes) for row in rows} == {("all_reduce", "float32", 2, 2)}
    (row,) = read_nccl_tests(saved(tmp_path, ALL_TO_ALL))
    assert (row.operation, row.num_bytes, row.latency_us, row.nodes) == ("all_to_all", 268435456, 520935, 1)


def test_nccl_table_has_the_columns_of_collectives(tmp_path):
    rows = collectives_table(read_nccl_tests(saved(tmp_path, ALL_TO_ALL)), "h100-sxm", "me")
    write_table(rows, tmp_path / "collectives.csv")
    head, line = (tmp_path / "collectives.csv").read_text().splitlines()
    assert head == "gpu,source,impl,op,dtype,gpus,nodes,bytes,latency_us"
    assert line == "h100-sxm,me,nccl,all_to_all,float32,2,1,268435456,520935.0"
    with pytest.raises(FileError, match=r"neither \.parquet"):
        write_table(rows, tmp_path / "collectives.xlsx")


def test_a_parquet_table_can_be_validated(tmp_path):
    pytest.importorskip("pyarrow")
    from moesim.studies.validate_measured import validate_table

    path = tmp_path / "collectives.parquet"
    write_table(collectives_table(read_nccl_tests(saved(tmp_path, ALL_TO_ALL)), "h100-sxm", "me"), path)
    assert validate_table(path, "collectives").overall.n == 1


def test_nccl_card(tmp_path):
    text = network_card_from_nccl(read_nccl_tests(saved(tmp_path, ALL_REDUCE)), "nvlink-4", "mine", "my run")
    card = read_card(saved(tmp_path, text, "mine.yaml"), NetworkSpec)
    assert card.allreduce_bandwidth.value == pytest.approx(128.74e9)
    assert card.allreduce_latency.value == pytest.approx(42.56e-6)
    assert card.bandwidth_raw.value == 450e9
    assert "my run" in card.allreduce_bandwidth.source


@pytest.mark.parametrize("form", ["text", "json"])
def test_nvbandwidth(tmp_path, form):
    text = NVBANDWIDTH
    if form == "json":
        cases = [
            {"name": "host_to_device_memcpy_ce", "bandwidth_matrix": [["26.03", "25.94"]]},
            {"name": "device_to_device_memcpy_read_ce", "bandwidth_matrix": [["N/A", "276.07"], ["275.40", "N/A"]]},
        ]
        text = json.dumps({"nvbandwidth": {"testcases": cases}})
    cases = read_nvbandwidth(saved(tmp_path, text)).bandwidths()
    assert cases["host_to_device_memcpy_ce"] == [26.03, 25.94]
    link = read_card(saved(tmp_path, card_from_nvbandwidth(cases, "pcie-4.0-x16", "mine", "me"), "mine.yaml"), LinkSpec)
    assert link.bandwidth.value == pytest.approx(25.985e9)
    assert link.latency.value == pytest.approx(6e-6)
    card = card_from_nvbandwidth(cases, "nvlink-3", "other", "me")
    network = read_card(saved(tmp_path, card, "other.yaml"), NetworkSpec)
    assert network.bandwidth.value == pytest.approx(275.735e9)


def test_what_is_no_output_is_refused(tmp_path):
    nothing = saved(tmp_path, "hello")
    with pytest.raises(FileError, match="does not say which collective"):
        read_nccl_tests(nothing)
    with pytest.raises(FileError, match="lists no ranks"):
        read_nccl_tests(nothing, "all_reduce")
    with pytest.raises(FileError, match="holds no bandwidth"):
        read_nvbandwidth(nothing)
    with pytest.raises(FileError, match="not valid JSON"):
        read_nvbandwidth(saved(tmp_path, "{broken"))
    with pytest.raises(CardError, match="has none of the cases"):
        card_from_nvbandwidth({"host_to_device_memcpy_ce": [1.0]}, "nvlink-4", "x", "me")
