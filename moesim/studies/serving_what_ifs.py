"""What would help a deployment most: the same requests again with one thing changed, one change after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from moesim.errors import MoesimError
from moesim.results.serving import ServingResult, ServingWhatIf
from moesim.scenario.load import ScenarioFile, with_settings
from moesim.scenario.serving.build import BuiltServing, build_serving
from moesim.scenario.serving.summary import run_serving
from moesim.studies.points import overrides_of


@dataclass(frozen=True)
class Change:
    """Settings that replace the scenario's, and what they mean."""

    name: str
    meaning: str
    settings: dict[str, Any]


def with_serving_what_ifs(file: ScenarioFile, progress: Callable[[str], None] = lambda _: None) -> ServingResult:
    """The result of a serving scenario with every change that can be made simulated, most helpful first."""
    built = build_serving(file)
    result = run_serving(built)
    what_ifs = []
    for change in changes(built):
        progress(change.name)
        try:
            changed = build_serving(with_settings(file, overrides_of(change.settings.items())))
        except MoesimError:  # does not fit
            continue
        what_ifs.append(_what_if(change, result, run_serving(changed)))
    what_ifs.sort(key=lambda what_if: (-what_if.faster, what_if.change))
    return result.model_copy(update={"what_if": what_ifs})


def changes(built: BuiltServing) -> Iterator[Change]:
    """Every change that is possible here."""
    serving = built.serving
    more = serving.replicas + 1
    yield Change("one more replica", "the same load over one more", {"serving.replicas": more})
    if not built.setup.limits.least_loaded and built.setup.limits.replicas > 1:
        yield Change(
            "least-loaded routing", "to the emptiest replica, not in turn", {"serving.routing": "least-loaded"}
        )
    doubled = 2 * serving.max_num_seqs
    yield Change("twice the places", f"max_num_seqs {doubled}", {"serving.max_num_seqs": doubled})
    yield from _of_transfers(built) if built.offloaded is not None else _of_gpus(built)


def _of_transfers(built: BuiltServing) -> Iterator[Change]:
    """Where experts are offloaded: what brings them."""
    node = built.node
    fast = {"host link twice as fast": ("link.bandwidth", node.link.bandwidth.value)}
    if node.storage is not None:
        fast["drive twice as fast"] = ("storage.read_bandwidth", node.storage.read_bandwidth.value)
    for name, (place, rate) in fast.items():
        yield Change(name, "all else unchanged", {f"hardware.override.{place}": f"{2 * rate / 1e9:.6g} GB/s"})
    if not node.gpu.unified_memory and built.file.scenario.policies.on_miss.name == "fetch":
        yield Change("misses on the CPU", "on_miss: fiddler", {"policies.on_miss": "fiddler"})


def _of_gpus(built: BuiltServing) -> Iterator[Change]:
    """Where all experts are on GPUs: the scheduler's budget, bytes, and how fast they are read."""
    serving, gpu = built.serving, built.gpu
    for factor in (0.5, 2):
        tokens = int(serving.max_num_batched_tokens * factor)
        name = "half the step" if factor < 1 else "twice the step"
        yield Change(name, f"max_num_batched_tokens {tokens}", {"serving.max_num_batched_tokens": tokens})
    if built.precisions.experts.name == "bf16" and built.precisions.dense.name == "bf16":
        narrow = {"precision.experts": "fp8", "precision.dense": "fp8"}
        yield Change("weights in fp8", "half the bytes; the output changes a little", narrow)
    faster = f"{2 * gpu.memory_bandwidth.value / 1e9:.6g} GB/s"
    override = {"hardware.override.gpu.memory_bandwidth": faster}
    yield Change("GPU memory twice as fast", "arithmetic and launches unchanged", override)


def _what_if(change: Change, ours: ServingResult, other: ServingResult) -> ServingWhatIf:
    before, after = ours.headline, other.headline
    latency = after.latency_s.mean if after.latency_s else None
    return ServingWhatIf(
        change=change.name,
        meaning=change.meaning,
        output_tokens_per_s=after.output_tokens_per_s,
        ttft_p99_s=after.ttft_s.p99 if after.ttft_s else None,
        tpot_p99_s=after.tpot_s.p99 if after.tpot_s else None,
        latency_mean_s=latency,
        good_share=after.good_share,
        gpus=after.gpus,
        usd_per_million_output_tokens=after.usd_per_million_output_tokens,
        faster=before.latency_s.mean / latency if latency and before.latency_s else 1.0,
    )
