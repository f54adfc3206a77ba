"""The output of nccl-tests (``all_reduce_perf``, ``alltoall_perf``, ...) as rows of the table ``collectives``.

A result line is ``size count type [redop] [root] time algbw busbw wrong time algbw busbw wrong``: out of place first,
then in place, times in microseconds. Lines that begin with ``#`` name devices and versions. Source: the layout that
``nccl-tests/src/common.cu`` prints, as seen in logs of NVIDIA/nccl issues 583 and 1530.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from moesim.documents import read_text
from moesim.errors import FileError

MAX_BYTES = 2**26
OPERATIONS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "sendrecv": "send_recv",
}
DTYPES = {
    "half": "float16",
    "float": "float32",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "uint8": "int8",
    "double": "float64",
}
_RANK = re.compile(r"#\s*Rank\s+(\d+)\b.*\bon\s+(\S+)\s+device")
_PROGRAM = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|alltoall|sendrecv)_perf")
_TITLE = re.compile(r"#\s*Collective test starting:\s*(\w+)_perf", re.IGNORECASE)
_START = re.compile(r"^\s*(\d+)\s+(\d+)\s+([a-z]\w*)\s+(?:(?:[a-z]+|-)\s+)?(\S.*)$")
#: Columns of times: two groups of four, or one; a root stands before them in some versions.
_GROUP = 4


@dataclass(frozen=True)
class NcclRow:
    """One size: bytes as nccl-tests count them, microseconds out of place, bus bandwidth in GB/s."""

    operation: str
    dtype: str
    gpus: int
    nodes: int
    num_bytes: int
    latency_us: float
    bus_gb_per_s: float


def read_nccl_tests(path: Path, operation: str | None = None) -> list[NcclRow]:
    """The rows of an output.

    Args:
        operation: which collective; default: the program that the output names.

    Raises:
        FileError: it can't be read, names no collective, no rank, or holds no result line.
    """
    text = read_text(path, MAX_BYTES)
    named = _TITLE.search(text) or _PROGRAM.search(text)
    found = operation or (OPERATIONS.get(named[1].lower()) if named else None)
    if found is None:
        raise FileError.of(str(path), "does not say which collective it measured", "--operation all_to_all")
    ranks = {int(match[1]): match[2] for match in map(_RANK.match, text.splitlines()) if match}
    if not ranks:
        raise FileError.of(
            str(path), "lists no ranks", "keep the lines '#  Rank  0 ... on HOST device 0' of nccl-tests"
        )
    gpus, nodes = len(ranks), len(set(ranks.values()))
    rows = []
    for line in text.splitlines():
        match = _START.match(line)
        times = _times(match[4]) if match else None
        if match and times and times[0] > 0:
            dtype = DTYPES.get(match[3], match[3])
            rows.append(NcclRow(found, dtype, gpus, nodes, int(match[1]), times[0], times[1]))
    if not rows:
        raise FileError.of(str(path), "holds no result line of nccl-tests", "the text that it prints, uncut")
    return rows


def _times(columns: str) -> tuple[float, float] | None:
    """Time and bus bandwidth out of place; None where the columns are none of a result."""
    cells = columns.split()
    if len(cells) % _GROUP == 1:
        cells = cells[1:]
    try:
        return (float(cells[0]), float(cells[2])) if len(cells) in (_GROUP, 2 * _GROUP) else None
    except ValueError:
        return None
