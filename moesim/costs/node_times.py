"""All seconds of an offloading node's workload, evaluated once into arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.devices import cpu_device, gpu_device
from moesim.costs.operations import Context, Pricer, context_of
from moesim.costs.roofline import OpTime, roofline
from moesim.costs.transfer import transfer_s
from moesim.hardware import Node
from moesim.models import ModelSpec, parameters
from moesim.models.precision import Precision, Precisions
from moesim.traces.trace import RoutingTrace
from moesim.traces.visits import Visits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    """

    before: OpTime
    shared: OpTime
    expert: OpTime
    after: OpTime
    copy_s: Floats
    read_s: Floats
    cpu_s: Floats


def node_times(
    spec: ModelSpec, precisions: Precisions, node: Node, trace: RoutingTrace, visits: Visits, sizes: Ints
) -> Times:
    """The times of ``visits`` over ``trace`` for a language model on a node.

    Args:
        sizes: bytes of each expert. [keys]
    """
    pricer = _pricer(spec, precisions, node)
    steps = visits.steps
    context = context_of(steps, trace.request, trace.position, spec)
    tokens = steps.tokens
    before, tail = _before(pricer, tokens, context)
    after = tail + pricer.output_head(_sequences(visits, trace))
    copy_s, read_s = _transfers(node, sizes)
    return Times(
        before=before,
        shared=_repeat(pricer.shared_experts(tokens), visits.num_layers),
        expert=pricer.expert(visits.lookup_tokens),
        after=after,
        copy_s=copy_s,
        read_s=read_s,
        cpu_s=_cpu(spec, precisions, node, visits),
    )


@dataclass(frozen=True)
class FormTimes:
    """Of experts in another precision, as in :class:`Times`."""

    copy_s: Floats
    read_s: Floats
    expert: OpTime
    cpu_s: Floats


def form_times(
    spec: ModelSpec, precisions: Precisions, precision: Precision, node: Node, visits: Visits, sizes: Ints
) -> FormTimes:
    """What differs where experts are stored in another precision.

    Args:
        precision: of the experts.
        sizes: bytes of each. [keys]
    """
    stored = replace(precisions, experts=precision)
    expert = _pricer(spec, stored, node).expert(visits.lookup_tokens)
    return FormTimes(*_transfers(node, sizes), expert, _cpu(spec, stored, node, visits))


def _pricer(spec: ModelSpec, precisions: Precisions, node: Node) -> Pricer:
    return Pricer(
        spec=spec,
        dense=precisions.dense,
        experts=precisions.experts,
        dense_device=gpu_device(node.gpu, precisions.dense.compute),
        expert_device=gpu_device(node.gpu, precisions.experts.compute),
        kv_bytes_per_element=precisions.kv_bytes_per_element,
    )


def _transfers(node: Node, sizes: Ints) -> tuple[Floats, Floats]:
    """Seconds from host to GPU, and from flash."""
    latency = node.storage.read_latency.value if node.storage else 0.0
    flash = node.storage.read_bandwidth.value * node.storage.read_efficiency.value if node.storage else np.inf
    return transfer_s(sizes, node.link.latency.value, node.link.bandwidth.value), transfer_s(sizes, latency, flash)


def _before(pricer: Pricer, tokens: Ints, context: Context) -> tuple[OpTime, OpTime]:
    """What stands between the routers' results: for each visit, and past the last MoE layer for each step."""
    spec = pricer.spec
    moe_layers = set(spec.moe_layer_indices)
    passed = _nothing(len(tokens))
    columns = []
    for layer in range(spec.num_layers):
        passed = passed + pricer.attention(layer, tokens, context)
        if layer in moe_layers:
            columns.append(passed + pricer.router(tokens))
            passed = _nothing(len(tokens))
        else:
            passed = passed + pricer.dense_ffn(tokens)
    parts = ("compute_s", "memory_s", "launch_s")
    stacked = (np.stack([getattr(column, part) for column in columns], axis=1).reshape(-1) for part in parts)
    return OpTime(*stacked), passed


def _sequences(visits: Visits, trace: RoutingTrace) -> Ints:
    """Requests of each step: each gets one token from the output head."""
    steps = visits.steps
    step = np.repeat(np.arange(steps.num_steps), steps.tokens)
    pair = np.unique(np.stack([step, np.asarray(trace.request)[steps.row].astype(np.int64)]), axis=1)
    return np.bincount(pair[0], minlength=steps.num_steps).astype(np.int64)


def _cpu(spec: ModelSpec, precisions: Precisions, node: Node, visits: Visits) -> Floats:
    """Weights from DRAM or arithmetic, whichever is longer, and bf16 activations over the link both ways."""
    weights = parameters.expert_params(spec)
    op = roofline(2 * weights * visits.lookup_tokens, precisions.experts.bytes_for(weights), 0, cpu_device(node.cpu))
    activations = 2 * spec.hidden_size * visits.lookup_tokens
    return op.total_s + 2 * transfer_s(activations, node.link.latency.value, node.link.bandwidth.value)


def _nothing(count: int) -> OpTime:
    return OpTime(np.zeros(count), np.zeros(count), np.zeros(count))


def _repeat(op: OpTime, times: int) -> OpTime:
    return OpTime(np.repeat(op.compute_s, times), np.repeat(op.memory_s, times), np.repeat(op.launch_s, times))
