"""``moesim run`` and ``schema``: scenarios."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.console import AllowCodeOption, JsonOption, err, out, output_folder, print_json, progress
from moesim.cli.serving import run_serving_scenario
from moesim.units import format_bytes, format_joules, format_seconds, format_usd

if TYPE_CHECKING:
    from moesim.results import Result
    from moesim.results.result import Economy, Headline
    from moesim.scenario import ScenarioFile
    from moesim.scenario.run import Run

ScenarioArgument = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, as in --set policies.caching=lfu. Repeatable."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of everything random.")]
#: Relative to where the user stands; git ignores it.
DEFAULT_OUT = Path("moesim-out")
TIMELINE_STEPS = 24
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def run(
    scenario: ScenarioArgument,
    set_: SetOption = None,
    seed: SeedOption = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for the outputs; default: moesim-out/SCENARIO.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html and timeline.json.")] = True,
    study: Annotated[bool, typer.Option("--study/--no-study", help="Re-run with changes: what would help?")] = True,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate a scenario: headline, where the time went, what limits it and what would help."""
    from moesim.results.result import write_text
    from moesim.scenario import load_scenario
    from moesim.scenario.run import run_scenario
    from moesim.studies.bottleneck import with_what_ifs

    started = time.perf_counter()
    file = load_scenario(scenario, settings_of(set_, seed), code="run" if allow_code else "refuse")
    if file.scenario.parallel is not None:
        _run_on_cluster(file, out_dir or DEFAULT_OUT / scenario.stem, scenario.stem, (study, report, as_json))
        err().print(f"took {time.perf_counter() - started:.1f} s", style="dim")
        return
    if file.scenario.serving is not None:
        run_serving_scenario(file, out_dir or DEFAULT_OUT / scenario.stem, report, study, as_json)
        err().print(f"took {time.perf_counter() - started:.1f} s", style="dim")
        return
    with output_folder(out_dir or DEFAULT_OUT / scenario.stem) as folder:
        with progress("simulating") as bar:
            done = run_scenario(file)
            tell = lambda name: bar.update(bar.task_ids[0], description=f"what if: {name}")  # noqa: E731
            result = with_what_ifs(done, tell) if study else done.result
        texts = {"result.json": result.to_json()} | (_rendered(done, result) if report else {})
        for name, text in texts.items():
            write_text(folder / name, text)
    if as_json:
        sys.stdout.write(texts["result.json"])
    else:
        print_result(result, scenario.stem)
        out().print("\nwrote " + ", ".join(str(folder / name) for name in texts), markup=False)
    err().print(f"took {time.perf_counter() - started:.1f} s", style="dim")


def _run_on_cluster(file: ScenarioFile, target: Path, name: str, options: tuple[bool, bool, bool]) -> None:
    """A scenario with ``parallel``: the same files and the same kind of answer."""
    from moesim.cli.parallel import print_parallel, run_on_cluster
    from moesim.results.result import write_text

    study, report, as_json = options
    with output_folder(target) as folder:
        result, texts = run_on_cluster(file, study=study, report=report)
        for file_name, text in texts.items():
            write_text(folder / file_name, text)
    if as_json:
        sys.stdout.write(texts["parallel.json"])
        return
    print_parallel(result, name)
    out().print("\nwrote " + ", ".join(str(folder / file_name) for file_name in texts), markup=False)


def _rendered(done: Run, result: Result) -> dict[str, str]:
    """The report and the timeline, by file name."""
    from moesim.engine.quickest import recorded
    from moesim.engine.timeline import chrome_trace
    from moesim.report import render_run

    setup, layers = done.built.setup, done.built.parts.model.moe_layer_indices
    outcome = recorded(setup, done.figures, TIMELINE_STEPS)
    timeline = chrome_trace(setup, outcome, max_steps=TIMELINE_STEPS, layers=layers)
    as_text = json.dumps(timeline, allow_nan=False, separators=(",", ":"))
    return {"report.html": render_run(result), "timeline.json": as_text}


def schema() -> None:
    """Print the JSON Schema of scenarios, for editors that complete."""
    from moesim.scenario import Scenario

    print_json({"$schema": DIALECT, **Scenario.model_json_schema()})


def settings_of(set_: list[str] | None, seed: int | None) -> list[str]:
    """The overrides that ``--set`` and ``--seed`` stand for."""
    return [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]


def print_result(result: Result, name: str) -> None:
    """The headline, where the time went, what would help, and what to know about the numbers."""
    console = out()
    labels = f" ({', '.join(result.trace['labels'])})" if result.trace["labels"] else ""
    console.print(
        f"{name}: {result.model['name']} on {result.hardware['name']}, routing {result.trace['name']}{labels}",
        style="bold",
        markup=False,
    )
    if result.question:
        console.print(result.question, markup=False)
    console.print()
    for label, value in _headline(result):
        console.print(f"  {label:<20} {value}", markup=False)
    whole = result.headline.duration_s
    console.print(f"\nWhere the time went ({format_seconds(whole)} simulated)", style="bold", markup=False)
    for part in sorted(result.breakdown.total, key=lambda part: -part.seconds):
        bar = "█" * round(part.share * 40)
        console.print(f"  {part.name:<22} {part.share:6.1%}  {bar}", markup=False)
    for link in result.links:
        moved = format_bytes(link.demand_bytes + link.prefetch_bytes)
        console.print(f"  {link.name + ' busy':<22} {link.busy_share:6.1%}  {moved}", style="dim", markup=False)
    _print_bottleneck(result)
    shares = sorted(result.evidence_shares.items(), key=lambda item: -item[1])
    rests = ", ".join(f"{share:.0%} {kind}" for kind, share in shares)
    console.print(f"\nSimulated time rests on constants that are: {rests}", markup=False)
    for warning in result.warnings:
        console.print(f"! {warning}", style="yellow", markup=False)


def _headline(result: Result) -> list[tuple[str, str]]:
    head = result.headline
    decode, ttft, tpot = head.decode_tokens_per_s, head.ttft_s, head.tpot_s
    rows = [("throughput", f"{head.output_tokens_per_s:.1f} output tokens/s, prefill included")]
    if decode is not None:
        rows.insert(0, ("decode", f"{decode:.1f} tokens/s"))
    rows.append(("TTFT", _spread(ttft.p50, ttft.p99) if ttft else "– (the trace has no prefill)"))
    if tpot:
        rows.append(("TPOT", _spread(tpot.p50, tpot.p99)))
    if head.hit_rate_per_lookup is not None:
        late = f"(late, counted as hits: {head.late_rate_per_lookup:.1%})"
        rows.append(("hit rate per lookup", f"{head.hit_rate_per_lookup:.1%} {late}"))
    if (found := result.economy) is not None:
        rows += _economy(head, found)
    if head.fetched_bytes_per_decode_token is not None:
        rows.append(("fetched", f"{head.fetched_bytes_per_decode_token / 1e9:.3f} GB per decode token"))
    if (changed := result.output_changed).share:
        ways = {"low precision": changed.low_precision, "skipped": changed.skipped, "substituted": changed.substituted}
        told = ", ".join(f"{way} {share:.1%}" for way, share in ways.items() if share)
        rows.append(("output changed", f"{changed.share:.1%} of gate weight ({told})"))
    return rows


def _economy(head: Headline, found: Economy) -> list[tuple[str, str]]:
    """Energy and money, or why they are unknown."""
    energy, money = (f"– ({'; '.join(lacking)})" for lacking in (found.energy_lacking, found.money_lacking))
    if head.joules_per_output_token is not None:
        kinds = ", ".join(sorted({row.kind for row in found.energy}))
        energy = f"{format_joules(head.joules_per_output_token)} per output token ({kinds})"
    if head.usd_per_million_output_tokens is not None:
        kinds = ", ".join(sorted({row.kind for row in found.money}))
        per_million = format_usd(head.usd_per_million_output_tokens)
        money = f"{per_million} per million output tokens ({found.basis}: {found.money[0].meaning}; {kinds})"
    return [("energy", energy), ("money", money)]


def _spread(p50: float, p99: float) -> str:
    return f"p50 {format_seconds(p50)}, p99 {format_seconds(p99)}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"


def _print_bottleneck(result: Result) -> None:
    found, console = result.bottleneck, out()
    console.print(f"\nBound by {found.bound_by}: {found.share:.0%} of the time.", style="bold", markup=False)
    if found.what_if:
        console.print("What would help most (each simulated again):")
        for what_if in found.what_if:
            console.print(f"  {what_if.change:<36} {what_if.speedup:.2f}x  {what_if.meaning}", markup=False)
    for bound in result.bounds:
        value = f"{_amount(bound.value)} {bound.unit}, and this run {_amount(bound.ours)}"
        console.print(f"  bound: {bound.name}: {value} ({bound.status})", markup=False)
    if not result.bounds:
        told = "not all misses are computed on the GPU in full; `moesim optimum SCENARIO` says what it can prove"
        console.print(f"  bound: none in passing, since {told}", markup=False)
