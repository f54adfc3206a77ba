"""What may turn out otherwise than planned: settings that change one thing of a deployment and its load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moesim.hardware import Kind
from moesim.scenario.load import ScenarioFile, with_settings
from moesim.scenario.schema import NO_TRACE, Scenario
from moesim.studies.points import overrides_of
from moesim.units import parse

#: How far constants of each kind may be off (assumed; of fitted forms see `moesim validate costs`).
ERROR_OF_KIND: dict[Kind, float] = {"measured": 0.10, "published": 0.15, "datasheet": 0.25, "assumed": 0.40}
LOAD_FACTORS = (1.1, 1.25, 1.5, 2.0, 3.0)


def error_bar(shares: Mapping[Kind, float]) -> float:
    """Relative error of step times: that of each kind by its share, as if all were off in the same direction."""
    return sum(ERROR_OF_KIND[kind] * share for kind, share in shares.items())


def loaded(file: ScenarioFile, settings: Mapping[str, Any], factor: float) -> dict[str, Any] | None:
    """The load so many times as large; None where that has no meaning."""
    scenario = _scenario(file, settings)
    arrivals = scenario.arrivals
    if arrivals is None:
        return None
    if arrivals.rate is not None:
        return {"arrivals.rate": f"{parse(arrivals.rate, 'request_rate') * factor:.9g} /s"}
    if arrivals.users is not None:
        return {"arrivals.users": max(round(arrivals.users * factor), 1)}
    return {"arrivals.speed": arrivals.speed * factor}


def changes(file: ScenarioFile, settings: Mapping[str, Any], error: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of each change that can be made."""
    scenario = _scenario(file, settings)
    for factor in (0.7, 1.3):
        if (more := loaded(file, settings, factor)) is not None:
            yield f"load × {factor:g}", more
    yield from _longer(scenario)
    yield from _routed(scenario)
    if scenario.serving is not None:
        yield f"step times {error:.0%} longer (error bar)", {"serving.time_scale": 1 + error}
        yield f"step times {error:.0%} shorter (error bar)", {"serving.time_scale": 1 - error}
        return
    yield "link 20 % slower", _override(file, settings, "link.bandwidth", 0.8)
    if scenario.hardware.storage or scenario.hardware.node:
        yield "drive 20 % slower", _override(file, settings, "storage.read_bandwidth", 0.8)
    yield "GPU memory 20 % slower", _override(file, settings, "gpu.memory_bandwidth", 0.8)


def _scenario(file: ScenarioFile, settings: Mapping[str, Any]) -> Scenario:
    return with_settings(file, overrides_of(settings.items())).scenario


def _longer(scenario: Scenario) -> Iterator[tuple[str, dict[str, Any]]]:
    """Prompts twice as long."""
    arrivals, most = scenario.arrivals, scenario.workload.max_prompt
    if arrivals is None and most is not None:
        yield "prompts up to twice as long", {"workload.max_prompt": 2 * most}
    if arrivals is not None and arrivals.prompt is not None:
        yield (
            "prompts twice as long",
            {"arrivals.prompt": {**arrivals.prompt.model_dump(), "mean": 2 * arrivals.prompt.mean}},
        )


def _routed(scenario: Scenario) -> Iterator[tuple[str, dict[str, Any]]]:
    """Routing that favours few experts less, or more; in place of a recorded one, one out of chance."""
    made = scenario.trace.synthetic
    if made is not None:
        yield "routing uniform", {"trace.synthetic.skew": 0.0}
        yield "routing more skewed", {"trace.synthetic.skew": made.skew + 0.6}
        return
    workload = scenario.workload
    lengths = {}
    if scenario.serving is None:
        wanted = None if workload.requests is None else workload.requests + workload.warmup_requests
        sizes = {"requests": wanted, "prompt": workload.max_prompt, "output": workload.max_output}
        lengths = {name: size for name, size in sizes.items() if size is not None}
    for name, skew, stickiness in (("uniform and without locality", 0.0, 0.0), ("strongly skewed", 1.2, 0.2)):
        synthetic = {**lengths, "skew": skew, "stickiness": stickiness}
        yield f"routing {name} (synthetic)", {"trace": {"file": NO_TRACE, "synthetic": synthetic}}


def _override(file: ScenarioFile, settings: Mapping[str, Any], name: str, factor: float) -> dict[str, Any]:
    from moesim.scenario.parts import node_of

    node = node_of(_scenario(file, settings))
    part, field = name.split(".")
    value = getattr(getattr(node, part), field).value * factor
    return {f"hardware.override.{name}": f"{value / 1e9:.6g} GB/s"}
