"""Flows that share links, event by event: max-min fair shares, as a network of lossless links with fair queues gives.

A flow uses every link of its route at one rate. Rates are max-min fair: raise all together until a link is full, freeze
its flows, go on with the rest (Bertsekas & Gallager, "Data Networks", 1992, section 6.5.2). They change when a flow
starts or ends. SimPy keeps the clock; the shares are vectorised.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from moesim.hardware.topology import Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Flows whose ends lie closer together than this share of the time that has passed end together.
TOGETHER = 1e-9


@dataclass(frozen=True)
class Flow:
    """Bytes over a route, from ``start_s`` on."""

    route: tuple[int, ...]
    num_bytes: float
    start_s: float = 0.0


def fair_rates(routes: Ints, capacity: Floats) -> Floats:
    """Max-min fair rates.

    Args:
        routes: links of each flow, padded with -1. [flows, hops]
        capacity: bytes per second of each link. [links]
    """
    flows, links = len(routes), len(capacity)
    rate = np.zeros(flows)
    left = np.append(capacity.astype(np.float64), np.inf)  # hop -1
    open_flows = (routes >= 0).any(axis=1)
    rate[~open_flows] = np.inf
    while open_flows.any():
        used = routes[open_flows]
        count = np.bincount(used[used >= 0], minlength=links)
        share = np.where(count > 0, left[:links] / np.maximum(count, 1), np.inf)
        fair = float(share.min())
        full = np.append(share <= fair * (1 + 1e-12), False)
        frozen = open_flows & full[routes].any(axis=1)
        rate[frozen] = fair
        taken = routes[frozen]
        left[:links] -= fair * np.bincount(taken[taken >= 0], minlength=links)
        left[:links] = np.maximum(left[:links], 0.0)
        open_flows &= ~frozen
    return rate


class FlowNetwork:
    """Flows on links with a SimPy clock."""

    def __init__(self, capacity: Floats, together: float = TOGETHER):
        self.env = simpy.Environment()
        self.capacity, self.together = capacity, together
        self._changed = self.env.event()

    def run(self, flows: Sequence[Flow]) -> Floats:
        """When each flow ends. [flows]"""
        hops = max((len(flow.route) for flow in flows), default=1) or 1
        routes = np.array([[*flow.route, *[-1] * (hops - len(flow.route))] for flow in flows], dtype=np.int64)
        left = np.array([flow.num_bytes for flow in flows], dtype=np.float64)
        start = np.array([flow.start_s for flow in flows], dtype=np.float64)
        return self.run_arrays(routes.reshape(len(flows), hops), left, start)

    def run_arrays(self, routes: Ints, num_bytes: Floats, start: Floats) -> Floats:
        """As :meth:`run`, on arrays."""
        end = np.where((num_bytes > 0) & (routes >= 0).any(axis=1), np.inf, start)
        self.env.process(self._serve(routes, num_bytes.astype(np.float64).copy(), start, end))
        self.env.run()
        return end

    def _serve(self, routes: Ints, left: Floats, start: Floats, end: Floats) -> Generator[Any, Any, None]:
        """From event to event: the next start, or the next end at the rates of now."""
        env = self.env
        while np.isinf(end).any():
            active = np.isinf(end) & (start <= env.now)
            waiting = np.isinf(end) & (start > env.now)
            until_start = float(start[waiting].min()) - env.now if waiting.any() else np.inf
            rate = np.zeros(len(left))
            until_end = np.inf
            if active.any():
                rate[active] = fair_rates(routes[active], self.capacity)
                until_end = float((left[active] / rate[active]).min())
            step = min(until_end, until_start)
            if until_end <= until_start:
                step = min(max(step * (1 + self.together), self.together * env.now), until_start)
            yield env.timeout(step)
            left[active] -= rate[active] * step
            done = active & (left <= rate * step * 1e-12 + 1e-9)
            left[done], end[done] = 0.0, env.now


def flow_seconds(
    topology: Topology, num_bytes: Floats, first: int = 0, together: float = 0.01
) -> tuple[Floats, Floats]:
    """Until each GPU has sent and received all of a traffic matrix whose flows start together.

    Args:
        num_bytes: from GPU ``first + i`` to ``first + j``. [gpus, gpus]
        together: flows that end within this share of the time that has passed end together.
    """
    gpus = len(num_bytes)
    source, target = np.nonzero(num_bytes)
    if not len(source):
        return np.zeros(gpus), np.zeros(gpus)
    routes = topology.hops[(source + first) * topology.num_gpus + target + first].astype(np.int64)
    capacity = np.array([link.alltoall_bytes_per_s for link in topology.links])
    ends = FlowNetwork(capacity, together).run_arrays(routes, num_bytes[source, target], np.zeros(len(source)))
    sent, received = np.zeros(gpus), np.zeros(gpus)
    np.maximum.at(sent, source, ends)
    np.maximum.at(received, target, ends)
    return sent, received
