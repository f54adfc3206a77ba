"""Running the suite: each benchmark a process of its own, its cases on standard input, its rows read as they come.

A process that dies, stalls or runs out of the budget costs only the rows that it had not yet printed; each becomes a
``skipped`` entry with its reason.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moesim.errors import MicrobenchError
from moesim.microbench import environment
from moesim.microbench.build import ARCHITECTURES, Built, build
from moesim.microbench.decode_loop import ROUTING
from moesim.microbench.schema import SCHEMA, Clock, Gpu, Result, Row, Run, Skipped
from moesim.microbench.statistics import flags_of, summarised, thinned
from moesim.microbench.suite import Bench, Case, Level, case_key
from moesim.microbench.suite.bench import Program, Sizing, case_line

#: A process that prints nothing for so long is given up.
STALL_S = 180.0
#: Samples of a case, and milliseconds after which it is content with fewer.
_EFFORT: dict[Level, tuple[int, int]] = {"quick": (7, 120), "full": (20, 500)}
FILE_BYTES: dict[Level, int] = {"quick": 64 * 2**20, "full": 2**30}
BUDGET_S: dict[Level, float] = {"quick": 90.0, "full": 480.0}


@dataclass(frozen=True)
class Options:
    """How to run. ``directory``: where the storage benchmarks make their file; ``budget_s``: when to stop."""

    level: Level
    benches: Sequence[Bench]
    directory: Path
    budget_s: float
    seed: int = 1
    realtime: bool = False
    file_bytes: int = 0
    argv: Sequence[str] = ()


@dataclass
class _Gathered:
    """What has been measured so far."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    partial: bool = False


def run(options: Options, note: Callable[[str], None] = lambda _: None) -> Result:
    """Build what is needed and measure; an interrupt or the budget ends it with what there is (``partial``).

    Args:
        note: called with what is being done.

    Raises:
        MicrobenchError: the host program does not build, or the directory can't hold the test file.
    """
    start, started = time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    load_before = environment.load_average()
    gathered = _Gathered()
    built = _built(options, gathered, note)
    try:
        for bench in options.benches:
            if bench.program in built:
                _run_bench(bench, built[bench.program], options, start, gathered, note)
    except KeyboardInterrupt:
        gathered.partial = True
    if "cuda" in built and gathered.gpus:
        _note_clock(gathered, start, "after")
    return Result(
        schema_=SCHEMA,
        status="partial" if gathered.partial else "complete",
        run=Run(
            id=str(uuid.uuid4()),
            started_utc=started,
            duration_s=round(time.monotonic() - start, 1),
            level=options.level,
            argv=list(options.argv),
            seed=options.seed,
            realtime=options.realtime,
            file_bytes=_file_bytes(options),
        ),
        source=environment.source_of(built),
        machine=environment.machine_of(options.directory, gathered.gpus, gathered.clocks, load_before),
        rows=_with_throttling(gathered),
        skipped=gathered.skipped,
    )


def _file_bytes(options: Options) -> int:
    return options.file_bytes or FILE_BYTES[options.level]


def _built(options: Options, gathered: _Gathered, note: Callable[[str], None]) -> dict[Program, Built]:
    """The programs that the benchmarks need; a GPU program that can't be built or finds no GPU is skipped."""
    built: dict[Program, Built] = {}
    programs = {bench.program for bench in options.benches}
    if "host" in programs:
        built["host"] = build("host", note=lambda name: note(f"compiling {name}"))
    if "cuda" in programs:
        try:
            here = environment.architecture_here()
            names = [here] if here else ARCHITECTURES
            built["cuda"] = build("cuda", names, note=lambda name: note(f"compiling {name}"))
            gathered.gpus.extend(_devices(built["cuda"]))
        except MicrobenchError as error:
            reason = str(error.faults[0]).splitlines()[0]
            lacking = [bench for bench in options.benches if bench.program == "cuda"]
            gathered.skipped += [_all_skipped(bench, options, reason) for bench in lacking]
            built.pop("cuda", None)
        else:
            _note_clock(gathered, time.monotonic(), "before")
    return built


def _devices(program: Built) -> list[Gpu]:
    """The GPUs that the program finds.

    Raises:
        MicrobenchError: none, or no driver.
    """
    done = subprocess.run([program.path, "info"], capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    described: dict[str, Any] = {"error": f"the program ended with {done.returncode}"}
    if lines:
        described = json.loads(lines[-1])
    if "error" in described:
        raise MicrobenchError.of("no GPU", described["error"])
    return [environment.gpu_from(gpu) for gpu in described["gpus"]]


def _all_skipped(bench: Bench, options: Options, reason: str) -> Skipped:
    return Skipped(bench=bench.name, reason=reason, cases=max(1, len(bench.cases(options.level, _sizing(options)))))


def _sizing(options: Options) -> Sizing:
    return Sizing(cpu_threads=environment.cpu_threads(), file_bytes=_file_bytes(options))


def _run_bench(
    bench: Bench, program: Built, options: Options, start: float, gathered: _Gathered, note: Callable[[str], None]
) -> None:
    """Measure one benchmark's cases."""
    left = options.budget_s - (time.monotonic() - start)
    if left <= 0:
        gathered.partial = True
        gathered.skipped.append(_all_skipped(bench, options, "the budget was used up"))
        return
    cases = bench.cases(options.level, _sizing(options))
    waiting = {case_key(case): case for case in cases}
    reason = ""
    for number, line in enumerate(_lines(program, bench.name, cases, options, left), 1):
        if isinstance(line, str):
            reason = line
            gathered.partial = gathered.partial or line.startswith("the budget")
            break
        if "error" in line:
            reason = str(line["error"])
            break
        note(f"{bench.name}: {number} of {len(cases)}")
        waiting.pop(case_key(line["case"]), None)
        _take(bench, line, gathered)
        if number == 1 and bench.program == "cuda":
            _note_clock(gathered, start, f"during {bench.name}")
    if waiting:
        reason = reason or "the program ended without it"
        gathered.skipped.append(Skipped(bench=bench.name, reason=reason, cases=len(waiting)))


def _take(bench: Bench, line: dict[str, Any], gathered: _Gathered) -> None:
    """A row, or a case that the program skipped (equal reasons are counted together)."""
    if "skipped" in line:
        reason = str(line["skipped"])
        for index, other in enumerate(gathered.skipped):
            if (other.bench, other.reason) == (bench.name, reason):
                gathered.skipped[index] = other.model_copy(update={"cases": other.cases + 1, "case": None})
                return
        gathered.skipped.append(Skipped(bench=bench.name, reason=reason, case=line["case"]))
        return
    try:
        gathered.rows.append(row_of(bench, line))
    except (KeyError, ValueError, ValidationError) as error:
        reason = f"the program printed an impossible row ({type(error).__name__})"
        gathered.skipped.append(Skipped(bench=bench.name, reason=reason, case=line.get("case")))


def row_of(bench: Bench, line: dict[str, Any]) -> Row:
    """A program's line with its statistics, its side of the split and its flags.

    Raises:
        ValueError, ValidationError: its numbers are impossible.
    """
    time_us = summarised(line["samples_us"], line["warmup"], line["batch"])
    rates = {"bytes_gbps": line["bytes"] / time_us.p50 * 1e-3, "flops_tflops": line["flops"] / time_us.p50 * 1e-6}
    return Row(
        bench=bench.name,
        case=line["case"],
        impl=line["impl"],
        split=bench.split(line["case"]),
        time_us=time_us,
        samples_us=thinned(line["samples_us"]),
        bytes=line["bytes"],
        flops=line["flops"],
        derived={name: float(f"{value:.5g}") for name, value in rates.items() if value > 0},
        cpu_share=line["cpu_share"],
        checked=line["checked"],
        flags=[*line["flags"], *flags_of(time_us, line["cpu_share"])],
        values=line["values"],
        timeline=line.get("timeline"),
    )


def _lines(
    program: Built, bench: str, cases: Sequence[Case], options: Options, left_s: float
) -> Iterator[dict[str, Any] | str]:
    """What a program prints, line by line; last, where it did not end by itself, why it was ended."""
    samples, case_ms = _EFFORT[options.level]
    words = [
        str(program.path),
        bench,
        "--seed",
        str(options.seed),
        "--samples",
        str(samples),
        "--case-ms",
        str(case_ms),
    ]
    words += ["--dir", str(options.directory), "--file-bytes", str(_file_bytes(options))]
    words += ["--routing", str(ROUTING)] if program.program == "cuda" else []
    words += ["--realtime", "1"] if options.realtime else []
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=options.directory
    )
    printed: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_forward, args=(process, cases, printed), daemon=True).start()
    deadline = time.monotonic() + left_s
    try:
        while True:
            wait_s = min(STALL_S, deadline - time.monotonic())
            try:
                text = printed.get(timeout=max(0.01, wait_s))
            except queue.Empty:
                yield "the budget was used up" if wait_s < STALL_S else f"no row for {STALL_S:.0f} s"
                return
            if text is None:
                break
            if text.startswith("{"):
                yield json.loads(text)
        if (code := process.wait(30)) not in (0, 2):
            yield f"the program ended with {code}: {_last_line(process)}"
    finally:
        _end(process, options.directory)


def _forward(process: subprocess.Popen[str], cases: Sequence[Case], printed: queue.Queue[str | None]) -> None:
    """Feeds a program its cases and passes on what it prints; None at the end."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("".join(case_line(case) + "\n" for case in cases))
        process.stdin.close()
    except BrokenPipeError:
        pass
    for line in process.stdout:
        printed.put(line)
    printed.put(None)


def _end(process: subprocess.Popen[str], directory: Path) -> None:
    """A program that still runs is ended, and what it may have left is removed."""
    if process.poll() is None:
        process.kill()
        process.wait(30)
    (directory / f"moesim-bench-{process.pid}.bin").unlink(missing_ok=True)


def _last_line(process: subprocess.Popen[str]) -> str:
    """What a program said last on stderr, without folders."""
    assert process.stderr is not None
    lines = process.stderr.read().strip().splitlines()
    return os.path.basename(lines[-1])[:200] if lines else "no message"


def _note_clock(gathered: _Gathered, start: float, when: str) -> None:
    clock = environment.clock_at(max(0.0, time.monotonic() - start), when)
    if clock is not None:
        gathered.clocks.append(clock)


def _with_throttling(gathered: _Gathered) -> list[Row]:
    """The rows; those of benchmarks during which the SM clock was 5 % below its highest are flagged ``throttled``."""
    during = {
        clock.when: clock.sm_mhz for clock in gathered.clocks if clock.when.startswith("during ") and clock.sm_mhz
    }
    highest = max(during.values(), default=0.0)
    slow = {when.removeprefix("during ") for when, sm_mhz in during.items() if sm_mhz < 0.95 * highest}
    return [
        row.model_copy(update={"flags": [*row.flags, "throttled"]}) if row.bench in slow else row
        for row in gathered.rows
    ]
