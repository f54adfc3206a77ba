"""All seconds of an offloading node's workload, evaluated once into arrays.

The GPU's work is priced by the fitted forms (:mod:`moesim.costs.kernels`), routed experts one by one as an offloading
runtime computes them; kernels are launched in a stream, since what runs next depends on what has arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.charges import Charge, Ledger, add, charges, columns, op_time
from moesim.costs.cpu_expert import cpu_expert_s
from moesim.costs.flash import WHOLE, FlashReads, flash_read
from moesim.costs.kernels import Kernels, Software
from moesim.costs.layers import Layers
from moesim.costs.part import Part
from moesim.costs.roofline import OpTime
from moesim.costs.step_contexts import contexts_of, turns_of
from moesim.costs.transfer import PINNED, HostCopies, host_copy, transfer_s
from moesim.hardware import Node
from moesim.models import ModelSpec, Precision, Precisions, parameters
from moesim.traces.trace import RoutingTrace
from moesim.traces.visits import Visits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: No CUDA graphs: the next kernel depends on what has arrived.
SOFTWARE = Software(cuda_graphs=False)


@dataclass(frozen=True)
class Ways:
    """How experts move: from host memory to the GPU, and from flash."""

    host: HostCopies = PINNED
    flash: FlashReads = WHOLE


USUAL = Ways()


@dataclass(frozen=True)
class Times:
    """Seconds of everything that can happen.

    Attributes:
        before: from a visit's start to its router's result: attention, router, dense layers passed. [visits]
        shared: shared experts. [visits]
        expert: a routed expert on the GPU, for all its tokens of the step. [lookups]
        after: what ends a step: layers past the last MoE layer, output head and sampling. [steps]
        copy_s: an expert from host to GPU memory. [keys]
        read_s: an expert from flash to host memory (to the GPU's, where memory is unified). [keys]
        cpu_s: a routed expert on the CPU, with its activations' way there and back. [lookups]
        charges: what the GPU's seconds are for, and what they rest on; empty where nothing is known of that.
    """

    before: OpTime
    shared: OpTime
    expert: OpTime
    after: OpTime
    copy_s: Floats
    read_s: Floats
    cpu_s: Floats
    charges: tuple[Charge, ...] = ()


def node_times(
    spec: ModelSpec,
    precisions: Precisions,
    node: Node,
    trace: RoutingTrace,
    visits: Visits,
    sizes: Ints,
    ways: Ways = USUAL,
) -> Times:
    """The times of ``visits`` over ``trace`` for a language model on a node.

    Args:
        sizes: bytes of each expert. [keys]
        ways: how they move.
    """
    work = _GpuWork(spec, precisions, node, trace, visits)
    expert = _experts(spec, precisions, node, visits)
    copy_s, read_s = transfers(node, sizes, ways)
    num_visits, lookups, steps = visits.num_visits, len(visits.lookup_key), visits.steps.num_steps
    return Times(
        before=op_time(work.before, (num_visits,)),
        shared=op_time(work.shared, (num_visits,)),
        expert=op_time(expert, (lookups,)),
        after=op_time(work.after, (steps,)),
        copy_s=copy_s,
        read_s=read_s,
        cpu_s=_cpu(spec, precisions, node, visits),
        charges=(
            *charges(work.before, "before", (num_visits,)),
            *charges(work.shared, "shared", (num_visits,)),
            *charges(expert, "expert", (lookups,)),
            *charges(work.after, "after", (steps,)),
        ),
    )


@dataclass(frozen=True)
class FormTimes:
    """Of experts in another precision, as in :class:`Times`."""

    copy_s: Floats
    read_s: Floats
    expert: OpTime
    cpu_s: Floats
    charges: tuple[Charge, ...]


def form_times(
    spec: ModelSpec,
    precisions: Precisions,
    precision: Precision,
    node: Node,
    visits: Visits,
    sizes: Ints,
    ways: Ways = USUAL,
) -> FormTimes:
    """What differs where experts are stored in another precision.

    Args:
        precision: of the experts.
        sizes: bytes of each. [keys]
        ways: how they move.
    """
    stored, shape = replace(precisions, experts=precision), (len(visits.lookup_key),)
    own = _experts(spec, stored, node, visits)
    expert = {(name := f"{part.name} in {precision.name}"): replace(part, name=name) for part in own.values()}
    cpu_s = _cpu(spec, stored, node, visits)
    charged = tuple(charges(expert, "expert", shape))
    return FormTimes(*transfers(node, sizes, ways), op_time(expert, shape), cpu_s, charged)


def transfers(node: Node, sizes: Ints, ways: Ways) -> tuple[Floats, Floats]:
    """Seconds from host to GPU, and from flash (nothing, where there is no drive)."""
    copied = host_copy(sizes, node.link, node.cpu, ways.host).seconds
    if node.storage is None:
        return copied, np.zeros(len(sizes))
    return copied, flash_read(sizes, node.storage, node.cpu, ways.flash).seconds


def _experts(spec: ModelSpec, precisions: Precisions, node: Node, visits: Visits) -> Ledger:
    """Routed experts one by one. [lookups]"""
    counts, of_lookup = np.unique(visits.lookup_tokens, return_inverse=True)
    parts = Layers(spec, precisions, Kernels(node.gpu, SOFTWARE, node.fits)).expert(counts.astype(np.float64))
    return {part.name: part.at(of_lookup) for part in parts}


class _GpuWork:
    """What the GPU computes, as a ledger of operations for each of the engine's times."""

    def __init__(self, spec: ModelSpec, precisions: Precisions, node: Node, trace: RoutingTrace, visits: Visits):
        self._spec = spec
        self._layers = Layers(spec, precisions, Kernels(node.gpu, SOFTWARE, node.fits))
        steps = visits.steps
        turns = turns_of(steps, trace.request, trace.position)
        windows = {_window(spec, layer): None for layer in range(spec.num_layers)}
        self._contexts = contexts_of(turns, steps.num_steps, windows)
        self._counts, self._of_step = np.unique(steps.tokens, return_inverse=True)
        self._passed: dict[tuple[int, float, int, bool], list[Part]] = {}
        ledgers, passed = self._columns()
        sequences = np.bincount(turns.step, minlength=steps.num_steps).astype(np.float64)
        self.before = columns(ledgers, steps.num_steps)
        self.after = add(passed, self._layers.head(sequences))
        shared = add({}, self._at_steps(self._layers.shared_experts(self._counts.astype(np.float64))))
        self.shared = {
            name: part.at(np.repeat(np.arange(steps.num_steps), visits.num_layers)) for name, part in shared.items()
        }

    def _columns(self) -> tuple[list[Ledger], Ledger]:
        """What stands before each MoE layer's router result, layer by layer; and past the last, for each step."""
        spec, moe_layers = self._spec, set(self._spec.moe_layer_indices)
        ledgers: list[Ledger] = []
        passed: Ledger = {}
        for layer in range(spec.num_layers):
            passed = add(passed, self._layer(layer, layer in moe_layers))
            if layer in moe_layers:
                ledgers.append(passed)
                passed = {}
        return ledgers, passed

    def _layer(self, layer: int, has_experts: bool) -> list[Part]:
        """Attention and router of a layer, or attention and dense network. Layers that are alike are priced once."""
        spec, window = self._spec, _window(self._spec, layer)
        times = 2 if 0 < spec.num_encoder_layers <= layer else 1  # a decoder's layers attend to the encoder, too
        key = (id(spec.mixer(layer)), window, times, has_experts)
        if key not in self._passed:
            counts, layers, mixer = self._counts.astype(np.float64), self._layers, spec.mixer(layer)
            parts = self._at_steps(layers.mixer(mixer, counts)) + layers.attention(mixer, window, self._contexts)
            network = layers.router(counts) if has_experts else layers.dense_ffn(counts)
            self._passed[key] = [part.times(times) for part in parts] + self._at_steps(network)
        return self._passed[key]

    def _at_steps(self, parts: list[Part]) -> list[Part]:
        """Parts that were priced for each token count, as parts of each step."""
        return [part.at(self._of_step) for part in parts]


def _window(spec: ModelSpec, layer: int) -> float:
    return float(parameters.attention_window(spec, layer) or 0)


def _cpu(spec: ModelSpec, precisions: Precisions, node: Node, visits: Visits) -> Floats:
    """The expert on the CPU, and its tokens' bf16 activations over the link both ways."""
    activations = 2 * spec.hidden_size * visits.lookup_tokens
    copies = 2 * transfer_s(activations, node.link.latency.value, node.link.bandwidth.value)
    return cpu_expert_s(visits.lookup_tokens, spec, precisions.experts, node.cpu) + copies
