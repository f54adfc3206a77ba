"""What a Result says of its inputs."""

from __future__ import annotations

from typing import Any

from moesim.models import ModelSpec, Precisions, parameters
from moesim.results.result import HardwareFacts, MemoryRow, ModelFacts, TraceFacts
from moesim.scenario.build import Built
from moesim.setup import LOW, STREAMED
from moesim.traces import RoutingTrace

_FORMS = {STREAMED: "experts that stream through", LOW: "experts in low precision"}


def memory_rows(built: Built) -> list[MemoryRow]:
    """What takes which memory, in the order in which it was planned."""
    plan = built.memory
    gpu = {
        "experts": built.setup.gpu.capacity_bytes,
        **{_FORMS[number]: form.tier.capacity_bytes for number, form in built.setup.forms.items()},
        "dense weights": plan.dense,
        "KV cache": plan.kv,
        "reserve": plan.gpu_reserve,
    }
    gpu["unused"] = plan.gpu_total - sum(gpu.values())
    rows = [MemoryRow(memory="gpu", name=name, bytes=size) for name, size in gpu.items()]
    if built.setup.unified:
        return rows
    host = {"experts": plan.all_experts if plan.host_experts is None else plan.host_experts}
    host["reserve"] = plan.host_reserve
    host["unused"] = plan.host_total - sum(host.values())
    return rows + [MemoryRow(memory="host", name=name, bytes=size) for name, size in host.items()]


def model_facts(built: Built) -> ModelFacts:
    """The language model and how its weights are stored."""
    return model_facts_of(built.parts.model, built.parts.precisions, int(built.setup.sizes.max()))


def model_facts_of(model: ModelSpec, precisions: Precisions, expert_bytes: int) -> ModelFacts:
    """As :func:`model_facts`, from its parts."""
    return {
        "name": model.name,
        "hf_id": model.hf_id,
        "layers": model.num_layers,
        "moe_layers": model.num_moe_layers,
        "experts": model.num_experts,
        "top_k": model.top_k,
        "total_params": parameters.total_params(model),
        "expert_precision": precisions.experts.name,
        "expert_bits_per_weight": precisions.experts.bits_per_weight,
        "dense_precision": precisions.dense.name,
        "expert_bytes": expert_bytes,
    }


def hardware_facts(built: Built) -> HardwareFacts:
    """The parts of the machine."""
    node = built.parts.node
    return {
        "name": node.name,
        "gpu": node.gpu.title,
        "cpu": node.cpu.title,
        "link": node.link.title,
        "storage": node.storage.title if node.storage else None,
        "host_memory_bytes": node.host_memory.value,
    }


def trace_facts(built: Built) -> TraceFacts:
    """The routing, after its transforms; the checksum is that of the file."""
    return trace_facts_of(built.trace, built.parts.source)


def trace_facts_of(trace: RoutingTrace, source: RoutingTrace) -> TraceFacts:
    """As :func:`trace_facts`, from the trace as the model's routing, and as its file has it."""
    card = trace.card
    return {
        "name": card.name,
        "recorded_from": card.model,
        "origin": card.origin,
        "labels": list(card.labels),
        "transforms": list(card.transforms),
        "sha256": source.sha256,
        "requests": len(trace.request_ids),
        "tokens": trace.num_tokens,
        "licence": card.licence,
    }


def policy_facts(built: Built) -> dict[str, Any]:
    """Every policy with its parameters, and the rules around them."""
    setup, policies = built.setup, built.file.scenario.policies
    return {
        "caching": setup.gpu.policy.describe(),
        "host_caching": None if setup.host is None else setup.host.policy.describe(),
        "low_caching": None if setup.low is None else setup.low.tier.policy.describe(),
        "prefetch": built.parts.policies["prefetch"].describe(),
        "on_miss": setup.on_miss.describe(),
        "precision": built.parts.policies["precision"].describe(),
        "scope": policies.scope,
        "split": built.parts.policies["split"].describe() if policies.scope == "layer" else None,
        "batching": built.parts.policies["batching"].describe(),
        "rule": setup.rule,
        "link": setup.link,
        "chunk": policies.chunk,
        "withdraw": setup.withdraw,
    }
