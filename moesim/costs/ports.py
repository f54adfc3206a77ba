"""Which links hold up which GPU, and how much of a traffic matrix each GPU's fullest link carries.

Links that lead up from GPUs (a port out, a NIC, a way to the spine) hold up senders, those that lead down hold up
receivers, links between GPUs both. All flows of a matrix start together; a GPU has sent
when its fullest link out is done, and received when its fullest link in is. That is a lower bound of the time under
max-min fair shares, and equal to it where the matrix is balanced (tests hold it against ``moesim.engine.flows``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.hardware.topology import SPINE, Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Volume:
    """What the fullest links of each GPU carry, of a matrix in items.

    Attributes:
        nvlink_out, nvlink_in: items over the fullest NVLink. [..., gpus]
        network_out, network_in: seconds for each byte of an item, over the slowest other link. [..., gpus]
    """

    nvlink_out: Floats
    nvlink_in: Floats
    network_out: Floats
    network_in: Floats


class Ports:
    """The links of ``gpus`` GPUs from ``first`` on (a pipeline's stage, or all).

    Attributes:
        incidence: 1 where a pair's route uses a link. [links, pairs]
    """

    def __init__(self, topology: Topology, gpus: int, first: int = 0):
        self.topology, self.gpus, self.first = topology, gpus, first
        number = np.arange(first, first + gpus)
        self._hops = topology.hops[(number[:, None] * topology.num_gpus + number).ravel()]
        self.is_nvlink = np.array([link.level == "NVLink" for link in topology.links])
        self.rate = np.array([link.alltoall_bytes_per_s for link in topology.links])

    @cached_property
    def incidence(self) -> Any:
        """See the class."""
        from scipy.sparse import csr_array

        rows, columns = np.nonzero(self._hops >= 0)
        shape = (len(self.topology.links), self.gpus**2)
        return csr_array((np.ones(len(rows)), (self._hops[rows, columns], rows)), shape=shape)

    @cached_property
    def uses(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which GPUs send, and which receive, over each link. [links, gpus] each"""
        rows, columns = np.nonzero(self._hops >= 0)
        link = self._hops[rows, columns]
        sends, receives = (np.zeros((len(self.topology.links), self.gpus), dtype=bool) for _ in range(2))
        sends[link, rows // self.gpus] = True
        receives[link, rows % self.gpus] = True
        return sends, receives

    def loads(self, traffic: ArrayLike) -> Floats:
        """Items on each link. [links] from [gpus, gpus]"""
        return np.asarray(self.incidence @ np.asarray(traffic, dtype=np.float64).ravel())

    def volume(self, loads: Floats) -> Volume:
        """The fullest links of each GPU, of :meth:`loads`."""
        per_byte = loads / self.rate
        sides = self._sides
        return Volume(
            *(_largest(loads if nv else per_byte, *sides[side, nv]) for nv in (True, False) for side in (0, 1))
        )

    @cached_property
    def _sides(self) -> dict[tuple[int, bool], tuple[Ints, Ints, int]]:
        """(out or in, NVLink or other) -> the links of each GPU, one after the other, and where each GPU's begin."""
        sends, receives = self.uses
        rises = np.array([_height(link.target) - _height(link.source) for link in self.topology.links])
        out, into = sends & (rises >= 0)[:, None], receives & (rises <= 0)[:, None]
        found = {}
        for side, used in enumerate((out, into)):
            for nvlink in (True, False):
                owner, carried = np.nonzero((used & (self.is_nvlink == nvlink)[:, None]).T)
                starts = np.searchsorted(owner, np.arange(self.gpus)).astype(np.int64)
                found[side, nvlink] = (carried.astype(np.int64), starts, self.gpus)
        return found


def _largest(values: Floats, link: Ints, start: Ints, gpus: int) -> Floats:
    """The largest value over each GPU's links; 0 where it has none. [gpus]"""
    if not len(link):
        return np.zeros(gpus)
    taken = np.append(values[link], 0.0)
    found = np.maximum.reduceat(taken, np.minimum(start, len(link)))
    ends = np.append(start[1:], len(link))
    return np.where(ends > start, found, 0.0)


def _height(vertex: str) -> int:
    """How far up a vertex stands: GPUs, then NICs and PCI Express switches, node switches and leaves, the spine."""
    last = vertex.rpartition(".")[2] if vertex.startswith("n") else vertex
    if last.startswith("gpu"):
        return 0
    if last.startswith(("nic", "pcie")):
        return 1
    return 3 if last == SPINE else 2
