"""moesim from Python: one call from a scenario to its Result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moesim.results.saved import SavedResult
from moesim.scenario import Scenario, load_scenario
from moesim.scenario.parallel.run import run_parallel
from moesim.scenario.parallel.summary import summarise_parallel
from moesim.scenario.run import result_of, run_scenario
from moesim.studies.bottleneck import with_what_ifs
from moesim.studies.replication import with_studies
from moesim.studies.serving_what_ifs import with_serving_what_ifs


def run(
    source: str | Path | Mapping[str, Any] | Scenario,
    *,
    overrides: Sequence[str] = (),
    study: bool = False,
    allow_code: bool = False,
) -> SavedResult:
    """Simulate a scenario: a :class:`moesim.results.Result`, or what its section `serving` or `parallel` asks for.

    Args:
        source: a scenario file, a mapping with the same keys, or a :class:`moesim.scenario.Scenario`.
        overrides: settings such as ``"policies.caching=lfu"`` that replace what the scenario says.
        study: also simulate what would help most (several more runs).
        allow_code: run policies that the scenario names as files.

    Raises:
        MoesimError: wrong input; ``faults`` has everything that was found.
    """
    file = load_scenario(source, overrides, code="run" if allow_code else "refuse")
    if file.scenario.parallel is not None:
        parallel = run_parallel(file)
        return with_studies(parallel) if study else summarise_parallel(parallel)
    if file.scenario.serving is not None:
        return with_serving_what_ifs(file) if study else result_of(file)
    done = run_scenario(file)
    return with_what_ifs(done) if study else done.result
