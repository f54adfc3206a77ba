"""``moesim microbench``, ``moesim validate card``: measure a machine, fit its card, hold the card against the rest."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moesim.cli.console import JsonOption, err, out, output_file, output_folder, print_json, print_table, progress
from moesim.errors import MicrobenchError
from moesim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from moesim.microbench.schema import Result

app = typer.Typer(
    help="Measure this machine, and fit a hardware card from it.", no_args_is_help=True, rich_markup_mode=None
)
Level = Literal["quick", "full"]
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0}
ResultArgument = Annotated[Path, typer.Argument(metavar="RESULT.json", help="What `moesim microbench run` wrote.")]
FullOption = Annotated[bool, typer.Option("--full/--quick", help="All cases (minutes), or a few of each (seconds).")]
OnlyOption = Annotated[str, typer.Option(metavar="A,B", help="Only these benchmarks; `moesim microbench list`.")]


@app.command("list")
def list_benches(full: FullOption = False, as_json: JsonOption = False) -> None:
    """Every benchmark: what it measures, what rests on it, and how many cases fits may see."""
    from moesim.microbench.environment import cpu_threads
    from moesim.microbench.runner import FILE_BYTES
    from moesim.microbench.suite import BENCHES
    from moesim.microbench.suite.bench import Sizing

    level: Level = "full" if full else "quick"
    sizing = Sizing(cpu_threads(), FILE_BYTES[level])
    rows = []
    for bench in BENCHES:
        cases = bench.cases(level, sizing)
        fitted = sum(bench.split(case) == "fit" for case in cases)
        rows.append([bench.name, bench.program, fitted, len(cases) - fitted, bench.feeds, bench.measures])
    columns = ["benchmark", "program", "fitted", "held out", "feeds", "measures"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


@app.command("build")
def build(
    program: Annotated[str, typer.Option(help="host, cuda, or both.")] = "both",
    arch: Annotated[str, typer.Option(help="Compute capabilities of the CUDA program.")] = "80,90a,100",
    as_json: JsonOption = False,
) -> None:
    """Compile the programs (with g++ and nvcc alone; warnings and register spills are errors)."""
    from moesim.microbench.build import NAMES
    from moesim.microbench.build import build as build_program

    names = [name for name in NAMES if program in ("both", name)]
    if not names:
        raise MicrobenchError.of("--program", f"unknown program {program!r}", "host, cuda or both")
    if not re.fullmatch(r"\d+[af]?(,\d+[af]?)*", arch):
        raise MicrobenchError.of("--arch", f"must be compute capabilities (got {arch!r})", "as in 80,90a,100")
    found = []
    for name in names:
        with progress(f"compiling {name}") as bar:
            built = build_program(name, arch.split(","), lambda file: bar.update(bar.task_ids[0], description=file))
        found.append([NAMES[name], built.toolchain.version, built.kernels, built.sha256[:16], str(built.path)])
    columns = ["program", "compiler", "kernels", "sha256", "path"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in found])
    else:
        print_table(columns, found)


@app.command("run")
def run(
    full: FullOption = False,
    only: OnlyOption = "",
    budget: Annotated[
        str,
        typer.Option(metavar="TIME", help="Of each program (GPU, host), as in 90s; default 60s, full 8m."),
    ] = "",
    output: Annotated[Path, typer.Option("--out", "-o", help="The result file.")] = Path("moesim-out/microbench.json"),
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where storage is measured; default: temporary.")
    ] = None,
    file_size: Annotated[str, typer.Option(help="Of the file that storage is measured with: 64 MiB, full 1 GiB.")] = "",
    again: Annotated[
        int | None, typer.Option(min=0, help="How often flagged cases are measured again; default: once, full twice.")
    ] = None,
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="In all, for other programs to leave the CPUs alone; default: none.")
    ] = "",
    rest: Annotated[
        str, typer.Option(metavar="TIME", help="After every 24 cases, for other programs to get on; default: none.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the random data.")] = 1,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Keep other programs off the CPUs meanwhile (needs the right to)."),
    ] = False,
) -> None:
    """Measure this machine; what can't be measured here is skipped, with the reason."""
    from moesim.microbench import runner
    from moesim.microbench.suite import chosen
    from moesim.results.result import write_text

    level: Level = "full" if full else "quick"
    benches = chosen(only.split(","))
    budget_s = _seconds(budget, "--budget") if budget else runner.BUDGET_S[level]
    folder = directory or Path(tempfile.gettempdir())
    argv = [f"--{level}", *(["--only", only] if only else []), *(["--budget", budget] if budget else [])]
    argv += [] if again is None else ["--again", str(again)]
    argv += [*(["--wait", wait] if wait else []), *(["--rest", rest] if rest else [])]
    with output_file(output), output_folder(folder), progress("building") as bar:
        options = runner.Options(
            level=level,
            benches=benches,
            directory=folder,
            budget_s=budget_s,
            seed=seed,
            realtime=realtime,
            file_bytes=_file_bytes(file_size),
            again=again,
            wait_s=_seconds(wait, "--wait") if wait else 0.0,
            rest_s=_seconds(rest, "--rest") if rest else 0.0,
            argv=[*argv, *(["--realtime"] if realtime else [])],
        )
        result = runner.run(options, note=lambda what: bar.update(bar.task_ids[0], description=what))
        write_text(output, result.to_json())
    for line in _told(result):
        err().print(line, markup=False)
    out().print(f"wrote {output}", markup=False)


@app.command("fit")
def fit(
    result: ResultArgument,
    output: Annotated[Path, typer.Option("--out", "-o", metavar="CARD.yaml", help="The card to write.")],
) -> None:
    """Fit a machine's card from a result: the same bytes every time."""
    from moesim.microbench.card import card_text
    from moesim.microbench.schema import read_result
    from moesim.results.result import write_text

    with output_file(output):
        write_text(output, card_text(result, output.stem))
    fitted = [row for row in read_result(result).rows if row.split == "fit"]
    flagged = sum(not row.fits for row in fitted)
    again = "; `run --wait 30m` waits for a quiet machine" if flagged > len(fitted) / 10 else ""
    err().print(f"fitted {len(fitted) - flagged} rows, {flagged} more were flagged{again}", markup=False)
    out().print(f"wrote {output}", markup=False)


@app.command("show")
def show(result: ResultArgument, only: OnlyOption = "", as_json: JsonOption = False) -> None:
    """A result's rows: medians, spreads, rates, flags."""
    from moesim.microbench.schema import read_result
    from moesim.microbench.suite import chosen

    found = read_result(result)
    names = {bench.name for bench in chosen(only.split(","))}
    rows = [row for row in found.rows if row.bench in names]
    if as_json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    machine = found.machine
    what = [machine.cpu_model, f"{machine.cpu_threads} CPUs", format_bytes(machine.memory_bytes)]
    out().print(", ".join(what + [gpu.name for gpu in machine.gpus]) + f"; {found.status}", style="bold", markup=False)
    columns = ["benchmark", "case", "impl", "median", "spread", "GB/s", "split", "flags"]
    print_table(
        columns,
        [
            [
                row.bench,
                row.told,
                row.impl,
                format_seconds(row.seconds),
                f"{row.spread:.0%}",
                f"{row.derived.get('bytes_gbps', 0):.4g}",
                row.split,
                ",".join(row.flags),
            ]
            for row in rows
        ],
    )
    for told in found.skips_told():
        out().print(f"skipped {told}", style="dim", markup=False)


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json")],
    second: Annotated[Path, typer.Argument(metavar="B.json")],
    as_json: JsonOption = False,
) -> None:
    """Two results: cases that both have, and whether they can be told apart."""
    from moesim.microbench.comparing import compared
    from moesim.microbench.schema import read_result

    changes = compared(read_result(first), read_result(second))
    if as_json:
        print_json([{**vars(change), "ratio": change.ratio} for change in changes])
        return
    if not changes:
        raise MicrobenchError.of(f"{first}, {second}", "have no case in common", "run the same benchmarks in both")
    print_table(
        ["benchmark", "case", "first", "second", "ratio", "apart"],
        [
            [
                change.bench,
                change.case[:70],
                format_seconds(change.first_us * 1e-6),
                format_seconds(change.second_us * 1e-6),
                f"{change.ratio:.2f}",
                "yes" if change.distinct else "not distinguishable",
            ]
            for change in changes
        ],
    )


@app.command("import-nvbandwidth")
def import_nvbandwidth(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `nvbandwidth` printed, or `--json`.")],
    as_json: JsonOption = False,
) -> None:
    """Others' link measurements, every cell, as published numbers. `moesim hardware import` makes cards of them."""
    from moesim.hardware.nvbandwidth import read_nvbandwidth

    found = read_nvbandwidth(file)
    if as_json:
        print_json([{**vars(reading), "kind": "published"} for reading in found.readings])
        return
    out().print(f"nvbandwidth {found.version}: kind published, measured by others", markup=False)
    print_table(
        ["test case", "row", "column", "value", "unit"],
        [[r.test, r.row, r.column, f"{r.value:g}", r.unit] for r in found.readings],
    )
    for name, why in found.not_run.items():
        out().print(f"not run: {name}: {why}", style="dim", markup=False)


def validate_card(
    card: Annotated[str, typer.Argument(metavar="CARD", help="A machine's card: a file, or a shipped name.")],
    result: ResultArgument,
    held_out_only: Annotated[bool, typer.Option("--held-out-only", help="Leave out the fitted rows.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where the report goes; default: reports/validation/CARD.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a machine's card against a result: fitted and held-out rows apart, beside the measurement's own spread."""
    from moesim.hardware import MachineSpec, load_machine, read_card
    from moesim.microbench.validation import validate_card as validated
    from moesim.microbench.validation_report import markdown, validation_json
    from moesim.results.result import write_text

    spec = read_card(Path(card), MachineSpec) if card.endswith((".yaml", ".yml")) else load_machine(card)
    target = folder or Path("reports/validation") / spec.name
    with output_folder(target), progress("validating"):
        found = validated(spec, result)
        text = markdown(found, held_out_only)
        write_text(target / "validation.md", text)
        write_text(target / "validation.json", validation_json(found))
    if as_json:
        print_json(found.as_json())
        return
    sys.stdout.write(text)
    err().print(f"wrote {target}/validation.md, {target}/validation.json", markup=False)


def _told(result: Result) -> Iterator[str]:
    """What came of a run: rows, flags, who else was at work, what was skipped."""
    flags = Counter(flag for row in result.rows for flag in row.flags)
    flagged = ", ".join(f"{count} {flag}" for flag, count in sorted(flags.items())) or "none flagged"
    yield f"{len(result.rows)} rows ({flagged}), {result.status}, in {result.run.duration_s:.0f} s"
    if result.run.others is not None:
        others = result.run.others
        took = f", the hypervisor took {others.stolen_cpus:.2g}" if others.stolen_cpus else ""
        yield f"meanwhile other programs kept {others.busy_cpus:.2g} of {result.machine.cpu_threads} CPUs busy{took}"
    yield from (f"skipped {told}" for told in result.skips_told())


def _seconds(text: str, option: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if match is None or match[2] not in _SECONDS or float(match[1]) <= 0:
        raise MicrobenchError.of(option, f"must be a time above nothing (got {text!r})", "as in 90s or 8m")
    return float(match[1]) * _SECONDS[match[2]]


def _file_bytes(text: str) -> int:
    from moesim.units import parse

    if not text:
        return 0
    try:
        size = round(parse(text, "bytes"))
    except ValueError as fault:
        raise MicrobenchError.of("--file-size", f"{fault} (got {text!r})") from None
    if size < 4 * 2**20:
        raise MicrobenchError.of("--file-size", f"is too small (got {text!r})", "4 MiB or more")
    return size
