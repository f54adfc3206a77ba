"""moesim from Python: one call from a scenario to its Result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moesim.results import Result
from moesim.scenario import Scenario, load_scenario
from moesim.scenario.run import run_scenario
from moesim.studies.bottleneck import with_what_ifs


def run(
    source: str | Path | Mapping[str, Any] | Scenario,
    *,
    overrides: Sequence[str] = (),
    study: bool = False,
    allow_code: bool = False,
) -> Result:
    """Simulate a scenario.

    Args:
        source: a scenario file, a mapping with the same keys, or a :class:`moesim.scenario.Scenario`.
        overrides: settings such as ``"policies.caching=lfu"`` that replace what the scenario says.
        study: also simulate what would help most (several more runs).
        allow_code: run policies that the scenario names as files.

    Raises:
        MoesimError: wrong input; ``faults`` has everything that was found.
    """
    done = run_scenario(load_scenario(source, overrides, code="run" if allow_code else "refuse"))
    return with_what_ifs(done) if study else done.result
