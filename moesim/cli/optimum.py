"""``moesim optimum``: how far is a scenario from the best possible?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.console import AllowCodeOption, JsonOption, err, out, output_folder, progress
from moesim.cli.run import DEFAULT_OUT, ScenarioArgument, SeedOption, SetOption, settings_of
from moesim.errors import MoesimError, nearest
from moesim.units import parse

if TYPE_CHECKING:
    from moesim.results.optimum import Finding, OptimumResult, Problem

PROBLEMS: tuple[Problem, ...] = ("caching", "prefetch", "placement", "tiers", "hybrid")


def optimum(
    scenario: ScenarioArgument,
    problem: Annotated[
        list[str] | None,
        typer.Option("--problem", metavar="PROBLEM", help=f"One of {', '.join(PROBLEMS)}; repeatable."),
    ] = None,
    time_limit: Annotated[str, typer.Option("--time-limit", help="For each problem's solver.")] = "60 s",
    quality: Annotated[
        str, typer.Option(help="For tiers: the uniform precision whose error may not be exceeded.")
    ] = "int4",
    errors: Annotated[
        Path | None, typer.Option(help="For tiers: CSV with layer, expert, bf16, int8, int4, int3, int2 (errors).")
    ] = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for results and schedules; default: moesim-out/SCENARIO.")
    ] = None,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """The best possible for a scenario, what is proven about it, and how far the scenario's own policies are from it.

    Default problems: caching (fewest fetches) and prefetch (least stall) on one node, placement on a cluster. Solutions
    are saved as files that `moesim run` replays.
    """
    from moesim.scenario import load_scenario
    from moesim.studies.optimum.found import Wanted
    from moesim.studies.optimum.study import optimum as solve

    started = time.perf_counter()
    wanted = Wanted(_seconds(time_limit), quality, errors)
    chosen = [_problem(name) for name in problem or ()]
    file = load_scenario(scenario, settings_of(set_, seed), code="run" if allow_code else "refuse")
    with output_folder(out_dir or DEFAULT_OUT / scenario.stem) as folder:
        with progress("simulating") as bar:
            tell = lambda name: bar.update(bar.task_ids[0], description=f"solving: {name}")  # noqa: E731
            found = solve(file, chosen, wanted, progress=tell)
        written = found.save(folder)
    if as_json:
        sys.stdout.write(found.result.to_json())
    else:
        print_optimum(found.result)
        out().print("\nwrote " + ", ".join(map(str, written)), markup=False)
    err().print(f"took {time.perf_counter() - started:.1f} s", style="dim")


def _problem(name: str) -> Problem:
    for known in PROBLEMS:
        if name == known:
            return known
    raise MoesimError.of("--problem", f"unknown problem {name!r}", nearest(name, PROBLEMS))


def _seconds(text: str) -> float:
    try:
        limit_s = parse(text, "time")
    except ValueError as error:
        raise MoesimError.of("--time-limit", str(error), "as in '60 s'") from None
    if not 0 < limit_s <= 86400:
        raise MoesimError.of("--time-limit", f"must be more than 0 and at most a day (got {text})", "as in '60 s'")
    return float(limit_s)


def print_optimum(result: OptimumResult) -> None:
    """Each finding: the answer with its status, the scenario beside it, and what replays the solution."""
    console = out()
    if result.question:
        console.print(result.question, style="bold", markup=False)
    for found in result.findings:
        console.print(f"\n{found.problem}: {found.question}", style="bold", markup=False)
        for line in _lines(found):
            console.print(f"  {line}", markup=False)
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _lines(found: Finding) -> list[str]:
    lines = []
    if found.value is not None:
        lines.append(f"best       {_amount(found.value)} {found.unit} ({found.status})")
    below = f", {found.gap:.2%} below the best found" if found.gap else ""
    proven = "none proven" if found.bound is None else f"{_amount(found.bound)} {found.unit}{below}"
    lines.append(f"bound      {proven}")
    if found.ours is not None:
        lines.append(f"scenario   {_amount(found.ours)} {found.unit}; {found.verdict}")
    lines.append(f"solver     {found.solver}, {found.seconds:.2f} s")
    lines.append(f"holds for  {found.rule}")
    for name, value in found.figures.items():
        lines.append(f"{name}: {_amount(value) if isinstance(value, float) else value}")
    if found.replay_with:
        lines.append(f"replay     {found.replay_with}")
    return lines


def _amount(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:,.5g}"
