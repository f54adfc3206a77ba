"""Running the suite: every benchmark of the GPU's program, then of the host's, then once more what was noisy.

A case that was noisy, contended or not as cold as it should be is measured again, a few times while the budget lasts;
the first attempt without such a flag takes the row's place (its value ``attempts`` says which). No attempt is chosen by
its time.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from moesim.errors import MicrobenchError
from moesim.microbench import environment
from moesim.microbench.build import ARCHITECTURES, Built, build
from moesim.microbench.decode_loop import ROUTING
from moesim.microbench.process import OUT_OF_TIME, Line, gpus_of, lines_of
from moesim.microbench.schema import SCHEMA, Clock, Gpu, Result, Row, Run, Skipped
from moesim.microbench.statistics import OTHERS_SHARE, flags_of, summarised, thinned
from moesim.microbench.suite import Bench, Case, Level, case_key
from moesim.microbench.suite.bench import Program, Sizing

#: Samples of a case, and milliseconds after which it is content with fewer.
_EFFORT: dict[Level, tuple[int, int]] = {"quick": (7, 120), "full": (20, 500)}
FILE_BYTES: dict[Level, int] = {"quick": 64 * 2**20, "full": 2**30}
#: Seconds of each program.
BUDGET_S: dict[Level, float] = {"quick": 60.0, "full": 480.0}
#: How often flagged cases are measured again, where nothing else is said.
AGAIN: dict[Level, int] = {"quick": 1, "full": 2}
#: Cases that are measured at a time where others are waited for, and for how long they must have been quiet.
PORTION, QUIET_S = 24, 2.0
#: Flags that another attempt may be without. A wrong result stays.
_PASSING = frozenset(("noisy", "contended", "not_cold", "not_warm", "not_covered"))


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        directory: where the storage benchmarks make their file.
        budget_s: of each program.
        again: how often flagged cases are measured again; None: the level's own.
        wait_s: seconds in all to wait for others to leave the CPUs alone, before each process.
        rest_s: seconds to leave the CPUs to others after each process.
    """

    level: Level
    benches: Sequence[Bench]
    directory: Path
    budget_s: float
    seed: int = 1
    realtime: bool = False
    file_bytes: int = 0
    again: int | None = None
    wait_s: float = 0.0
    rest_s: float = 0.0
    argv: Sequence[str] = ()

    @property
    def sizing(self) -> Sizing:
        """What the cases depend on, besides the level."""
        return Sizing(environment.cpu_threads(), self.file_bytes or FILE_BYTES[self.level])

    def words(self, bench: Bench) -> list[str]:
        """The arguments of a program."""
        samples, case_ms = _EFFORT[self.level]
        words = [bench.name, "--seed", str(self.seed), "--samples", str(samples), "--case-ms", str(case_ms)]
        words += ["--dir", str(self.directory), "--file-bytes", str(self.sizing.file_bytes)]
        if bench.program == "cuda":
            return [*words, "--routing", str(ROUTING)]
        return [*words, "--realtime", "1"] if self.realtime else words


@dataclass
class _Outcome:
    """What one process came to. ``reason``: why cases are ``missing``."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    missing: list[Case] = field(default_factory=list)
    reason: str = "the program ended without it"


def run(options: Options, note: Callable[[str], None] = lambda _: None) -> Result:
    """Build what is needed and measure; an interrupt or the budget ends it with what there is (``partial``).

    Args:
        note: called with what is being done.

    Raises:
        MicrobenchError: the host program does not build.
    """
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    session = _Session(options, note)
    session.build()
    load_before, cpu_before = environment.load_average(), environment.CpuTime.now()
    try:
        session.measure_all()
    except KeyboardInterrupt:
        session.partial = True
    session.note_clock("after")
    return Result(
        schema_=SCHEMA,
        status="partial" if session.partial else "complete",
        run=Run(
            id=str(uuid.uuid4()),
            started_utc=started,
            duration_s=round(session.elapsed_s(), 1),
            level=options.level,
            argv=list(options.argv),
            seed=options.seed,
            realtime=options.realtime,
            file_bytes=options.sizing.file_bytes,
            load_average=[*load_before, *environment.load_average()],
            others=environment.CpuTime.now().others_since(cpu_before),
        ),
        source=environment.source_of(session.built),
        machine=environment.machine_of(options.directory, session.gpus, session.clocks),
        rows=_with_throttling(session.rows, session.clocks),
        skipped=session.skipped,
    )


class _Session:
    """One run: what is built, what is left of each program's budget, and what has been measured so far."""

    def __init__(self, options: Options, note: Callable[[str], None]):
        self._options, self._note, self._start = options, note, time.monotonic()
        self._left_s: dict[Program, float] = {"host": options.budget_s, "cuda": options.budget_s}
        self._wait_s = options.wait_s
        self.built: dict[Program, Built] = {}
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self.clocks: list[Clock] = []
        self.gpus: list[Gpu] = []
        self.partial = False

    def elapsed_s(self) -> float:
        """Since the session began."""
        return time.monotonic() - self._start

    def note_clock(self, when: str) -> None:
        """Where there is a GPU: its clocks now."""
        clock = environment.clock_at(self.elapsed_s(), when) if self.gpus else None
        if clock is not None:
            self.clocks.append(clock)

    def build(self) -> None:
        """The programs that the benchmarks need; a GPU program that can't be built or finds no GPU is skipped.

        Raises:
            MicrobenchError: the host program does not build.
        """
        programs = {bench.program for bench in self._options.benches}
        if "host" in programs:
            self.built["host"] = build("host", note=lambda name: self._note(f"compiling {name}"))
        if "cuda" in programs:
            try:
                self._build_cuda()
            except MicrobenchError as error:
                reason = str(error.faults[0]).splitlines()[0]
                lacking = [bench for bench in self._options.benches if bench.program == "cuda"]
                self.skipped += [self._all_skipped(bench, reason) for bench in lacking]

    def _build_cuda(self) -> None:
        """The GPU's program, for the GPU that is there.

        Raises:
            MicrobenchError: no driver, no compiler, or no GPU.
        """
        if not environment.cuda_driver_found():
            raise MicrobenchError.of("no GPU", "this machine has no CUDA driver (libcuda.so.1)")
        here = environment.architecture_here()
        program = build("cuda", [here] if here else ARCHITECTURES, note=lambda name: self._note(f"compiling {name}"))
        self.gpus = [environment.gpu_from(gpu) for gpu in gpus_of(program)]
        self.built["cuda"] = program
        self.note_clock("before")

    def measure_all(self) -> None:
        """Every benchmark, the GPU's first, which are the scarcer; then what was noisy, again."""
        benches = [bench for bench in self._options.benches if bench.program in self.built]
        benches.sort(key=lambda bench: bench.program == "host")
        for bench in benches:
            self._measure_first(bench)
        again = self._options.again
        for attempt in range(2, (AGAIN[self._options.level] if again is None else again) + 2):
            for bench in benches:
                self._measure_again(bench, attempt)

    def _measure_first(self, bench: Bench) -> None:
        if self._left_s[bench.program] <= 0:
            self.partial = True
            self.skipped.append(self._all_skipped(bench, OUT_OF_TIME))
            return
        found = _Outcome()
        try:
            for cases in self._portions(bench.cases(self._options.level, self._options.sizing)):
                self._measure(bench, cases, found)
        finally:  # also what an interrupt leaves
            self.rows += found.rows
            self.skipped += found.skipped
        if found.missing:
            self.partial = self.partial or found.reason == OUT_OF_TIME
            self.skipped.append(Skipped(bench=bench.name, reason=found.reason, cases=len(found.missing)))

    def _measure_again(self, bench: Bench, attempt: int) -> None:
        """A benchmark's flagged cases once more; rows without a flag take the place of theirs."""
        flagged = [row.case for row in self.rows if row.bench == bench.name and _PASSING.intersection(row.flags)]
        if not flagged or self._left_s[bench.program] <= 0:
            return
        found = _Outcome()
        for cases in self._portions(flagged):
            self._measure(bench, cases, found)
        better = {
            case_key(row.case): row.model_copy(update={"values": {**row.values, "attempts": float(attempt)}})
            for row in found.rows
            if row.sound
        }
        self.rows = [better.get(case_key(row.case), row) if row.bench == bench.name else row for row in self.rows]

    def _portions(self, cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
        """All at once, or, where others are waited for or given a rest, in portions of about half a minute."""
        size = PORTION if self._options.wait_s + self._options.rest_s > 0 else max(1, len(cases))
        for begin in range(0, len(cases), size):
            self._wait_for_quiet()
            yield cases[begin : begin + size]
            time.sleep(self._options.rest_s)

    def _wait_for_quiet(self) -> None:
        while self._wait_s > 0:
            before = environment.CpuTime.now()
            time.sleep(QUIET_S)
            others = environment.CpuTime.now().others_since(before)
            if others.busy_cpus + others.stolen_cpus <= OTHERS_SHARE * environment.cpu_threads():
                return
            self._wait_s -= QUIET_S
            self._note(f"waiting: others keep {others.busy_cpus:.2g} CPUs busy")

    def _measure(self, bench: Bench, cases: Sequence[Case], found: _Outcome) -> None:
        """Some of a benchmark's cases, in a process of their own, which uses up the program's budget."""
        began, options = time.monotonic(), self._options
        waiting = {case_key(case): case for case in cases}
        lines = lines_of(
            self.built[bench.program], options.words(bench), cases, options.directory, self._left_s[bench.program]
        )
        for number, line in enumerate(lines, 1):
            if isinstance(line, str) or "error" in line:
                found.reason = line if isinstance(line, str) else str(line["error"])
                break
            self._note(f"{bench.name}: {number} of {len(cases)}")
            waiting.pop(case_key(line["case"]), None)
            _take(bench, line, found)
            if number == 1 and bench.program == "cuda":
                self.note_clock(f"during {bench.name}")
        found.missing += waiting.values()
        self._left_s[bench.program] -= time.monotonic() - began

    def _all_skipped(self, bench: Bench, reason: str) -> Skipped:
        cases = len(bench.cases(self._options.level, self._options.sizing))
        return Skipped(bench=bench.name, reason=reason, cases=max(1, cases))


def _take(bench: Bench, line: Line, found: _Outcome) -> None:
    """A row, or a case that the program skipped (equal reasons are counted together)."""
    if "skipped" not in line:
        try:
            found.rows.append(row_of(bench, line))
            return
        except (KeyError, ValueError) as error:  # a ValidationError is a ValueError
            line = {**line, "skipped": f"the program printed an impossible row ({type(error).__name__})"}
    reason = str(line["skipped"])
    for index, other in enumerate(found.skipped):
        if other.reason == reason:
            found.skipped[index] = other.model_copy(update={"cases": other.cases + 1, "case": None})
            return
    found.skipped.append(Skipped(bench=bench.name, reason=reason, case=line["case"]))


def row_of(bench: Bench, line: Line) -> Row:
    """A program's line with its statistics, its side of the split and its flags.

    Raises:
        KeyError, ValueError: it lacks numbers, or they are impossible.
    """
    time_us = summarised(line["samples_us"], line["warmup"], line["batch"])
    others = (line["values"].get("others_busy_cpus") or 0.0) if bench.shares_memory else 0.0
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
        flags=[*line["flags"], *flags_of(time_us, line["cpu_share"], others / environment.cpu_threads())],
        values=line["values"],
        timeline=line.get("timeline"),
    )


def _with_throttling(rows: Sequence[Row], clocks: Sequence[Clock]) -> list[Row]:
    """The rows; those of benchmarks during which the SM clock was 5 % below its highest are flagged ``throttled``."""
    during: dict[str, float] = {}
    for clock in clocks:
        if clock.when.startswith("during ") and clock.sm_mhz:
            during.setdefault(clock.when.removeprefix("during "), clock.sm_mhz)
    highest = max(during.values(), default=0.0)
    slow = {bench for bench, sm_mhz in during.items() if sm_mhz < 0.95 * highest}
    return [row.model_copy(update={"flags": [*row.flags, "throttled"]}) if row.bench in slow else row for row in rows]
