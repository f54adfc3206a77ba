"""Dispatch and combine of expert parallelism among GPUs of one or many nodes, from what really goes to whom.

Each kind prices the fitted form of its library over NVLink and, at the same time, bytes over the network:
``t = max(form(V), start + r b)``

- ``V``: bytes over a GPU's fullest NVLink, out or in; the forms are those of :mod:`moesim.costs.collective` (NCCL) and
  :mod:`moesim.costs.dispatch` (DeepEP), which see the balanced case as it was measured.
- ``r``: seconds per byte-and-item over its fullest other link (:mod:`moesim.costs.ports`), ``b`` bytes of an item.
- ``start``: the network's latency, and for NCCL a message for each remote GPU, four of them at a time (assumed).

Kinds: ``nccl`` sends a copy of a token for each of its experts, straight to each GPU; ``hierarchical`` first within
nodes to the GPU that has the receiver's place, then between nodes (Tutel's 2DH), one after the other; ``deepep-normal``
sends a token once to each node and from there once to each GPU; ``deepep-low-latency`` a copy for each expert;
``fused`` (FlashMoE) writes tiles one-sidedly, without a collective's start.

Every kind gives seconds until each GPU has sent and until it has received, both from the moment that all are ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.costs import collective, dispatch
from moesim.costs.fitted import Floats, Form, Peaks, Work, peaks_of
from moesim.costs.part import Basis, Constant, card_constant
from moesim.costs.ports import Volume
from moesim.hardware import load_network
from moesim.hardware.fits import Fit, FitKey, find, shipped_fits
from moesim.hardware.topology import Topology

KindOfExchange = Literal["nccl", "hierarchical", "deepep-normal", "deepep-low-latency", "fused"]
KINDS: tuple[KindOfExchange, ...] = ("nccl", "hierarchical", "deepep-normal", "deepep-low-latency", "fused")
#: NCCL's messages to remote GPUs that are under way together; assumed.
CONCURRENT_MESSAGES = 4.0
#: From a remote write to its being seen inside of a running kernel; assumed.
SIGNAL_S = 2e-6
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Sizes:
    """What a transfer is made of.

    Attributes:
        item_bytes: bytes of a token's copy on the wire.
        hidden, topk, experts: of the model (experts: physical ones).
        tokens, reached: of each GPU, and the GPUs that hold one of a token's experts (mean). [..., gpus]
    """

    item_bytes: float
    hidden: int
    topk: int
    experts: int
    tokens: Floats
    reached: Floats


@dataclass(frozen=True)
class Exchanged:
    """Seconds until each GPU has sent, and has received. [..., gpus]"""

    sent_s: Floats
    received_s: Floats


class Exchange:
    """Prices one kind of exchange on a cluster.

    Attributes:
        basis: the constants that its times rest on, by operation (``dispatch``, ``combine``).
    """

    def __init__(
        self,
        kind: KindOfExchange,
        topology: Topology,
        gpus: int,
        fits: Mapping[FitKey, Fit] | None = None,
    ):
        self.kind, self.topology, self.gpus = kind, topology, gpus
        self._fits = shipped_fits() if fits is None else fits
        self.per_node = min(topology.gpus_per_node, gpus)
        self.nodes = -(-gpus // self.per_node)
        self.peaks = _peaks(topology)
        remote = [link for link in topology.links if link.level != "NVLink"]
        self.network_latency_s = max((link.latency_s for link in remote), default=0.0)
        self._networks = {link.network for link in remote if link.level != "PCIe" or topology.num_nodes == 1}

    def price(self, operation: Literal["dispatch", "combine"], volume: Volume, sizes: Sizes) -> Exchanged:
        """Seconds of one exchange, from when all GPUs are ready."""
        within = self._within(operation, volume, sizes)
        start = self.start_s(operation, sizes)
        network = [
            np.where(per_byte > 0, start + per_byte * sizes.item_bytes, 0.0)
            for per_byte in (volume.network_out, volume.network_in)
        ]
        return Exchanged(*(np.maximum(one, other) for one, other in zip(within, network, strict=True)))

    def start_s(self, operation: str, sizes: Sizes) -> float:
        """Before bytes flow between nodes (or over PCI Express): messages of NCCL, the kernels' own start of DeepEP."""
        constants = self._fit(operation)[0].constants
        match self.kind:
            case "nccl" | "hierarchical":
                messages = max(self.gpus - self.per_node, 0) if self.kind == "nccl" else max(self.nodes - 1, 0)
                return self.network_latency_s * (1 + messages / CONCURRENT_MESSAGES)
            case "deepep-normal":
                return self.network_latency_s + constants["launch"]
            case "deepep-low-latency":
                polled = constants["per_expert"] * sizes.experts + constants["per_value"] * sizes.hidden
                return self.network_latency_s + constants["launch"] + polled
            case "fused":
                return self.network_latency_s + SIGNAL_S

    def _within(self, operation: str, volume: Volume, sizes: Sizes) -> tuple[Floats, Floats]:
        """Over NVLink: until sent, and until received."""
        fit, _ = self._fit(operation)
        bytes_out, bytes_in = volume.nvlink_out * sizes.item_bytes, volume.nvlink_in * sizes.item_bytes
        match self.kind:
            case "nccl" | "hierarchical":
                return self._nccl(fit, bytes_out), self._nccl(fit, bytes_in)
            case "deepep-normal":
                return self._normal(fit, volume.nvlink_out, sizes), self._normal(fit, volume.nvlink_in, sizes)
            case "deepep-low-latency":
                return self._low(fit, bytes_out, sizes), self._low(fit, bytes_in, sizes)
            case "fused":
                rate = max((link.bytes_per_s for link in self.topology.links if link.level == "NVLink"), default=np.inf)
                return SIGNAL_S + bytes_out / rate, SIGNAL_S + bytes_in / rate

    def _nccl(self, fit: Fit, num_bytes: Floats) -> Floats:
        work: Work = {
            "bus_bytes": num_bytes,
            "gpus": np.asarray(float(max(self.per_node, 2))),
            "int8_reduction": np.asarray(0.0),
        }
        seconds = collective.FORM.seconds(work, self.peaks, fit.constants)
        return np.where(num_bytes > 0, seconds, fit.constants["alpha"])

    def _normal(self, fit: Fit, items: Floats, sizes: Sizes) -> Floats:
        """The form's link carries ``tokens * hidden * reached * value_bytes * (n - 1)/n`` bytes: here the real ones."""
        tokens = np.maximum(sizes.tokens, 1e-9)
        work: Work = {
            "tokens": tokens,
            "hidden": np.asarray(float(sizes.hidden)),
            "reached": sizes.reached,
            "sms": np.asarray(float(dispatch.DEFAULT_SMS)),
            "gpus": np.asarray(float(self.per_node)),
            "value_bytes": _per_value(items * sizes.item_bytes, tokens * sizes.hidden * sizes.reached, self.per_node),
        }
        return dispatch.NORMAL.seconds(work, self.peaks, fit.constants)

    def _low(self, fit: Fit, num_bytes: Floats, sizes: Sizes) -> Floats:
        """The form's bytes count a GPU's own pairs as well, one part in as many as a node has GPUs."""
        num_bytes = num_bytes * (self.per_node / max(self.per_node - 1, 1))
        work: Work = {
            "tokens": np.asarray(1.0),
            "topk": np.asarray(1.0),
            "hidden": np.asarray(float(sizes.hidden)),
            "experts": np.asarray(float(sizes.experts)),
            "value_bytes": num_bytes / sizes.hidden,
        }
        return dispatch.LOW_LATENCY.seconds(work, self.peaks, fit.constants)

    def _fit(self, operation: str) -> tuple[Fit, str]:
        form, stack = _form_of(self.kind, operation)
        found = find(self._fits, form.operation, self.topology.gpu.name, stack)
        assert found is not None  # the class has constants for every form
        return found

    def outside(self, operation: str, sizes: Mapping[str, float]) -> list[str]:
        """In words, which of some sizes lie outside of what the form's constants were fitted to."""
        if self.kind == "fused":
            return []
        span = self._fit(operation)[0].fitted_range
        asked = {**sizes, "gpus": float(self.per_node)}
        return [
            f"{name} {asked[name]:g} outside of {low:g} to {high:g}"
            for name, (low, high) in span.items()
            if name in asked and not low <= asked[name] <= high
        ]

    def basis(self, operation: str, sizes: Mapping[str, float] | None = None) -> Basis:
        """What the times rest on: the form's constants, the network's cards, and what is assumed here.

        Args:
            sizes: ``tokens`` of a GPU, ``hidden``, ``topk``, ``experts``: those outside of the fitted range are told.
        """
        fit, how = self._fit(operation)
        form, _ = _form_of(self.kind, operation)
        units = {constant.name: "s" if constant.unit == "us" else "1" for constant in form.constants}
        constants = [
            Constant(
                f"{form.operation}.{name}", value, units[name], fit.source, fit.kind if how == "fitted" else "datasheet"
            )
            for name, value in fit.constants.items()
        ]
        if self.kind == "fused":
            constants = [Constant("fused.signal", SIGNAL_S, "s", "a remote write seen in a running kernel", "assumed")]
        for name in sorted(self._networks):
            card = load_network(name)
            number = card.alltoall_bandwidth or card.bandwidth
            constants.append(card_constant(f"network.{name}", number, "B/s"))
        for told in self.outside(operation, sizes or {}):
            constants.append(Constant(f"{form.operation}, extrapolated", 1.0, "1", told, "assumed"))
        if self.gpus > 8 and self.per_node > 8:
            told = "as among eight GPUs, that the constants were fitted to"
            constants.append(Constant("GPUs of an NVLink domain", float(self.per_node), "1", told, "assumed"))
        if self.kind in ("nccl", "hierarchical") and self.nodes > 1:
            told = "messages of NCCL that are under way together"
            constants.append(Constant("nccl.concurrent", CONCURRENT_MESSAGES, "1", told, "assumed"))
        return Basis(
            form.operation, f"{self.kind} ({fit.stack})", "fitted" if how == "fitted" else "class", tuple(constants)
        )


def _form_of(kind: KindOfExchange, operation: str) -> tuple[Form, str]:
    if kind == "deepep-normal":
        return dispatch.NORMAL, f"normal {operation}"
    if kind == "deepep-low-latency":
        return dispatch.LOW_LATENCY, f"low_latency {operation}"
    return collective.FORM, "nccl all_to_all"


def _per_value(num_bytes: Floats, values: Floats, gpus: int) -> Floats:
    """Bytes per value that make the form's link term what the fullest link carries."""
    share = (gpus - 1) / gpus if gpus > 1 else 1.0
    return np.asarray(num_bytes / np.maximum(values * share, 1e-30))


def _peaks(topology: Topology) -> Peaks:
    """The GPU's, with the cluster's own links."""
    nvlink = [link.raw_bytes_per_s for link in topology.links if link.level == "NVLink"]
    raw = max(nvlink, default=max((link.raw_bytes_per_s for link in topology.links), default=1.0))
    return replace(peaks_of(topology.gpu), link_bytes_per_s=raw)
