"""``moesim check``: is a scenario, a comparison, a sweep or a plan sound?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.console import out
from moesim.cli.run import SeedOption, SetOption, settings_of
from moesim.cli.serving import check_serving_scenario

if TYPE_CHECKING:
    from moesim.scenario import ScenarioFile


def check(
    document: Annotated[Path, typer.Argument(metavar="FILE", help="A scenario, comparison, sweep or plan (YAML).")],
    set_: SetOption = None,
    seed: SeedOption = None,
) -> None:
    """Check a file and everything that it names, without running it (nor any policy that is a file)."""
    changes = settings_of(set_, seed)
    kind = "scenario" if changes else kind_of(document)
    told = {"comparison": _comparison, "sweep": _sweep, "plan": _plan}
    if kind in told:
        out().print(f"{document}: ok: {told[kind](document)}", markup=False)
    else:
        _scenario(document, changes)


def kind_of(path: Path) -> str:
    """What a file is by its keys: ``comparison``, ``sweep``, ``plan``, else ``scenario``.

    A pipe can be read only once, and is taken for a scenario.
    """
    from moesim.documents import read_yaml
    from moesim.errors import ScenarioError

    if path.exists() and not path.is_file():
        return "scenario"
    data = read_yaml(path, ScenarioError).data
    keys = set(data) if isinstance(data, dict) else set()
    if "scenario" not in keys or "model" in keys:
        return "scenario"
    if keys & {"choices", "loads"}:
        return "plan"
    return "sweep" if keys & {"grid", "random"} else "comparison"


def _comparison(path: Path) -> str:
    from moesim.studies.compare import checked, load_comparison, points_of

    wanted, base = load_comparison(path)
    return f"a comparison of {len(wanted.policies)} policies, {checked(base, points_of(wanted))} runs"


def _sweep(path: Path) -> str:
    from moesim.scenario import load_scenario
    from moesim.studies.sweep import load_sweep, points_of

    wanted, base = load_sweep(path)
    load_scenario(base, code="read")
    return f"a sweep of {len(wanted.grid) + len(wanted.random)} keys, {len(points_of(wanted))} runs"


def _plan(path: Path) -> str:
    from moesim.studies.capacity.plan import load_plan

    plan = load_plan(path).plan
    configurations = math.prod(len(options) for options in plan.choices.values())
    return f"a plan of {len(plan.choices)} choices, {configurations} configurations for each load of {len(plan.loads)}"


def _scenario(path: Path, changes: list[str]) -> None:
    from moesim.scenario import load_scenario
    from moesim.scenario.build import build
    from moesim.scenario.parts import policy_files

    file = load_scenario(path, changes, code="read")
    if file.scenario.parallel is not None:
        _on_cluster(file, path)
        return
    if file.scenario.serving is not None:
        check_serving_scenario(file, str(path))
        return
    built = build(file)
    visits = built.setup.visits
    out().print(
        f"{path}: ok: {built.parts.model.name} on {built.parts.node.name}, {visits.steps.num_steps} steps, "
        f"{len(visits.lookup_key)} lookups",
        markup=False,
    )
    for name in policy_files(built.file.scenario):
        out().print(f"{name}: a policy file; its text was read, its code was not run", markup=False)


def _on_cluster(file: ScenarioFile, name: Path) -> None:
    from moesim.scenario.parallel.build import build_parallel

    built = build_parallel(file)
    gpus, steps = built.parts.degrees.gpus, built.parallel.batch.steps
    where = f"{gpus} GPUs of {built.parts.topology.name}"
    out().print(f"{name}: ok: {built.parts.model.name} on {where}, {steps} steps", markup=False)
