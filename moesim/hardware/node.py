"""One machine with one GPU, as the engine takes it: put together from cards, then adjusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from moesim import units
from moesim.errors import CardError, Fault, nearest
from moesim.hardware.catalog import load_cpu, load_gpu, load_link, load_node_card, load_storage
from moesim.hardware.fits import Fit, FitKey
from moesim.hardware.override import SOURCE, overridden
from moesim.hardware.sourced import Sourced
from moesim.hardware.specs import CpuSpec, GpuSpec, LinkSpec, NodeSpec, Price, Spec, StorageSpec

PARTS = ("gpu", "cpu", "link", "storage")
NO_PRICE = Price()
AnySpec = TypeVar("AnySpec", bound=Spec)


@dataclass(frozen=True)
class Node:
    """A GPU, the CPU beside it, the link between them, and a drive (None: nothing below host memory).

    ``price``: of the ready node with all of its ``gpu_count`` GPUs, where it was taken as it is. ``fits``: constants of
    its kernels; None: the shipped ones.
    """

    name: str
    gpu: GpuSpec
    cpu: CpuSpec
    link: LinkSpec
    storage: StorageSpec | None
    host_memory: Sourced[int]
    gpu_count: int = 1
    price: Price = NO_PRICE
    fits: Mapping[FitKey, Fit] | None = None


def build_node(
    node: str | None = None,
    *,
    gpu: str | None = None,
    cpu: str | None = None,
    link: str | None = None,
    storage: str | None = None,
    host_memory: str | None = None,
    overrides: Mapping[str, str | float] | None = None,
) -> Node:
    """A ready node, or parts, or a ready node with some parts replaced; then single numbers overridden.

    The link is the one named; else, where a GPU is named, that GPU's own; else the ready node's. So a new GPU in an
    old desktop runs at its own link's speed unless the slower link is named.

    Args:
        host_memory: a quantity such as ``"64 GiB"``.
        overrides: dotted path -> quantity or fraction, such as ``{"link.bandwidth": "50 GB/s"}``,
            ``{"gpu.compute.bf16": "300 TFLOPS"}``, ``{"gpu.memory_efficiency": 0.8}``.

    Raises:
        CardError: unknown names or fields, wrong quantities, missing parts: all at once (an unknown node alone).
    """
    ready = load_node_card(node) if node is not None else None
    bench = _Bench(ready, overrides or {})
    gpu_spec = bench.take("gpu", load_gpu, gpu)
    cpu_spec = bench.take("cpu", load_cpu, cpu)
    own_link = gpu_spec.link if gpu is not None and gpu_spec is not None else None
    link_spec = bench.take("link", load_link, own_link if link is None else link)
    storage_spec = bench.take("storage", load_storage, storage)
    memory = bench.memory(host_memory)
    if bench.faults or gpu_spec is None or cpu_spec is None or link_spec is None or memory is None:
        raise CardError(bench.faults)
    name = ", ".join(part for part in (node, gpu, cpu, link, storage, host_memory) if part is not None)
    replaced = any(part is not None for part in (gpu, cpu, link, storage, host_memory))
    price = ready.price if ready and not replaced else NO_PRICE  # another machine has another price
    count = ready.gpu_count if ready else 1
    return Node(name, gpu_spec, cpu_spec, link_spec, storage_spec, memory, count, price)


class _Bench:
    """Where a machine is put together: loads parts, applies their overrides, gathers what is wrong."""

    def __init__(self, ready: NodeSpec | None, overrides: Mapping[str, str | float]):
        self.faults: list[Fault] = []
        self._ready = ready
        self._overrides: dict[str, dict[str, str | float]] = {part: {} for part in PARTS}
        for path, value in overrides.items():
            part = path.partition(".")[0]
            if part in PARTS:
                self._overrides[part][path] = value
            else:
                self.faults.append(Fault(path, "an override starts with a part", nearest(part, PARTS)))

    def take(self, family: str, load: Callable[[str], AnySpec], name: str | None) -> AnySpec | None:
        """The named part, else the ready node's, with its overrides; None if there is none or it is faulty."""
        if name is None and self._ready is not None:
            name = getattr(self._ready, family)
        if name is None:
            self._note_absent(family)
            return None
        part: AnySpec | None = None
        with self._noting():
            part = load(name)
        for path, value in self._overrides[family].items():
            if part is not None:
                with self._noting(path):
                    part = overridden(part, path.split(".")[1:], value)
        return part

    def memory(self, size: str | None) -> Sourced[int] | None:
        """The host memory that a scenario gives, else the ready node's."""
        if size is None and self._ready is not None:
            return self._ready.host_memory
        if size is None:
            self.faults.append(Fault("host_memory", "is required without a ready node", "give it as in '64 GiB'"))
            return None
        try:
            num_bytes = round(units.parse(size, "bytes"))
        except ValueError as fault:
            self.faults.append(Fault("host_memory", f"{fault} (got {size!r})"))
            return None
        if num_bytes == 0:
            self.faults.append(Fault("host_memory", f"must be more than nothing (got {size!r})"))
        return Sourced[int](value=num_bytes, kind="assumed", source=SOURCE)

    def _note_absent(self, family: str) -> None:
        if family == "storage":
            absent = [Fault(path, "this machine has no storage", "name one") for path in self._overrides[family]]
            self.faults += absent
        elif family != "link":  # a link is missing only where its GPU is
            self.faults.append(Fault(family, "is required without a ready node", f"name a {family}"))

    @contextmanager
    def _noting(self, place: str = "") -> Iterator[None]:
        """Keeps the faults of a part, at ``place`` or else where they say."""
        try:
            yield
        except CardError as error:
            self.faults += [Fault(place or fault.place, fault.message, fault.hint) for fault in error.faults]
