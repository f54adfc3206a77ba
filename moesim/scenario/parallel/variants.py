"""A parallel scenario with something changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moesim.scenario.load import ScenarioFile
from moesim.scenario.schema import PolicyChoice


def changed(file: ScenarioFile, parallel: dict[str, Any], placement: PolicyChoice | None = None) -> ScenarioFile:
    """A scenario with some settings of ``parallel``, or its placement, replaced."""
    scenario = file.scenario
    assert scenario.parallel is not None
    old = scenario.parallel.model_dump()
    merged = {
        key: {**old[key], **value} if isinstance(value, dict) and value and isinstance(old[key], dict) else value
        for key, value in parallel.items()
    }
    spec = type(scenario.parallel).model_validate({**old, **merged})
    policies = scenario.policies.model_copy(update={"placement": placement or scenario.policies.placement})
    return replace(file, scenario=scenario.model_copy(update={"parallel": spec, "policies": policies}))
