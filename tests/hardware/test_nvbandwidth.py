"""nvbandwidth's output, text and JSON, cell by cell."""

from __future__ import annotations

import json

import pytest

from moesim.errors import FileError
from moesim.hardware.nvbandwidth import LinkReading, read_nvbandwidth

TEXT = """\
nvbandwidth Version: v0.8
Built from Git version: v0.8

Running host_to_device_memcpy_ce.
memcpy CE CPU(row) -> GPU(column) bandwidth (GB/s)
           0         1
 0     55.63     55.64

SUM host_to_device_memcpy_ce 111.27

Running device_to_device_memcpy_read_ce.
memcpy CE GPU(row) -> GPU(column) bandwidth (GB/s)
           0         1
 0       N/A    396.15
 1    395.71       N/A

SUM device_to_device_memcpy_read_ce 791.86

Running host_device_latency_sm.
memory latency SM CPU(row) <-> GPU(column) (ns)
          0
 0   772.58

SUM host_device_latency_sm 772.58

Running multinode_device_to_device_memcpy_read_ce.
Waived: no multinode
"""
CASES = [
    {"name": "host_to_device_memcpy_ce", "status": "Passed", "bandwidth_matrix": [["55.63", "55.64"]]},
    {
        "name": "device_to_device_memcpy_read_ce",
        "status": "Passed",
        "bandwidth_matrix": [["N/A", "396.15"], ["395.71", "N/A"]],
    },
    {"name": "host_device_latency_sm", "status": "Passed", "bandwidth_matrix": [["772.58"]]},
    {"name": "multinode_device_to_device_memcpy_read_ce", "status": "Waived"},
]


@pytest.fixture
def saved(tmp_path):
    def save(content):
        path = tmp_path / "out.txt"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return save


def test_text_and_json_say_the_same(saved):
    text = read_nvbandwidth(saved(TEXT))
    plain = read_nvbandwidth(saved({"nvbandwidth": {"Version": "v0.8", "testcases": CASES}}))
    assert text.readings == plain.readings
    assert text.version == plain.version == "v0.8"
    assert list(text.not_run) == list(plain.not_run) == ["multinode_device_to_device_memcpy_read_ce"]
    assert text.readings[2] == LinkReading("device_to_device_memcpy_read_ce", 0, 1, 396.15, "GB/s")
    assert text.readings[-1] == LinkReading("host_device_latency_sm", 0, 0, 772.58, "ns")
    assert set(text.bandwidths()) == {"host_to_device_memcpy_ce", "device_to_device_memcpy_read_ce"}
    assert text.bandwidths()["device_to_device_memcpy_read_ce"] == [396.15, 395.71]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("hello", "holds no bandwidth"),
        ("{broken", "not valid JSON"),
        ({"nvbandwidth": {}}, "lacks the list"),
        ({"nvbandwidth": {"testcases": [{"status": "Passed"}]}}, "a test case has no name"),
        ({"nvbandwidth": {"testcases": [{"name": "x", "bandwidth_matrix": [1]}]}}, "no list of lists"),
        ({"nvbandwidth": {"testcases": [{"name": "x", "bandwidth_matrix": [["fast"]]}]}}, r"x\[0\]\[0\]: must be a"),
        ({"nvbandwidth": {"testcases": [{"name": "x", "bandwidth_matrix": [[-1]]}]}}, "must be a number"),
        ({"nvbandwidth": {"testcases": [{"name": "x", "bandwidth_matrix": [["nan"]]}]}}, "must be a number"),
    ],
)
def test_what_is_no_output_is_refused(saved, content, told):
    with pytest.raises(FileError, match=told):
        read_nvbandwidth(saved(content))
