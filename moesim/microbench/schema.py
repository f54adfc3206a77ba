"""A result of the suite: one JSON object with everything that was measured, on what, and what was skipped, and why.

Format ``moesim.microbench/1``. Times are microseconds (``_us``), sizes bytes, rates GB/s (1e9). Rows come from the
programs, the rest from :mod:`moesim.microbench.environment`; nobody edits a result.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from moesim.documents import read_text
from moesim.errors import Fault, MicrobenchError
from moesim.microbench.suite.bench import Level, Program, Split

SCHEMA = "moesim.microbench/1"
MAX_BYTES = 256 * 2**20
#: Rows with one of these are never fitted; ``wrong`` results are not validated either.
UNFIT_FLAGS = frozenset(("noisy", "contended", "throttled", "wrong", "not_cold", "not_warm", "not_covered"))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
NotNegative = Annotated[float, AfterValidator(_finite), Field(ge=0)]
Positive = Annotated[float, AfterValidator(_finite), Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeStatistics(_Part):
    """Microseconds of one operation; each of ``n`` samples is the mean over ``batch`` of them."""

    n: Annotated[int, Field(ge=1)]
    warmup: int
    batch: Annotated[int, Field(ge=1)]
    min: Positive
    p10: Positive
    p50: Positive
    p90: Positive
    max: Positive
    mean: Positive
    stdev: NotNegative


class Row(_Part):
    """One case, measured.

    Attributes:
        impl: what was timed: an instruction set, ``ce`` (copy engine), ``own_mma``, ``cublas`` ...
        split: whether a fit may see it; written by the runner from the suite's table.
        bytes, flops: of one operation.
        cpu_share: of the CPU time that its threads wanted; None where the program can't tell.
        checked: its result was compared with a reference and agreed.
        values: what else was measured; names end in their unit.
        timeline: of ``replay``: what happened in each layer.
    """

    bench: str
    case: dict[str, int | str]
    impl: str
    split: Split
    time_us: TimeStatistics
    samples_us: list[Positive]
    bytes: NotNegative = 0
    flops: NotNegative = 0
    derived: dict[str, Finite] = {}
    cpu_share: NotNegative | None = None
    checked: bool = False
    flags: list[str] = []
    values: dict[str, Finite | None] = {}
    timeline: dict[str, Any] | None = None

    @property
    def told(self) -> str:
        """The case in a few words; long lists are cut."""
        return " ".join(f"{key}={str(value)[:24]}" for key, value in self.case.items())

    @property
    def fits(self) -> bool:
        """Whether a fit may use it: on the fit's side of the split, right, quiet and alone on its CPUs."""
        return self.split == "fit" and self.sound

    @property
    def sound(self) -> bool:
        """Whether it tells of the machine: checked, and with no flag that says otherwise."""
        return self.checked and not UNFIT_FLAGS.intersection(self.flags)

    @property
    def seconds(self) -> float:
        """The median."""
        return self.time_us.p50 * 1e-6

    @property
    def spread(self) -> float:
        """(p90 - p10) / p50."""
        return (self.time_us.p90 - self.time_us.p10) / self.time_us.p50


class Skipped(_Part):
    """A benchmark, or some of its cases, that could not be run here."""

    bench: str
    reason: str
    cases: Annotated[int, Field(ge=1)] = 1
    case: dict[str, int | str] | None = None


class Clock(_Part):
    """A GPU's state at one moment of the run; None is what the driver doesn't tell."""

    t_s: NotNegative
    when: str
    sm_mhz: NotNegative | None = None
    mem_mhz: NotNegative | None = None
    power_w: NotNegative | None = None
    temp_c: NotNegative | None = None
    pcie_gen: int | None = None
    pcie_width: int | None = None


class Gpu(_Part):
    """A device, as the CUDA runtime describes it."""

    index: int
    name: str
    cc: str
    sm_count: int
    memory_bytes: int
    l2_bytes: int
    driver: str
    cuda_runtime: int
    async_engines: int
    ecc: bool
    unified: bool = False
    power_limit_w: NotNegative | None = None
    pcie_gen_max: int | None = None
    pcie_width_max: int | None = None


class Storage(_Part):
    """Where the storage benchmarks read from. ``kind``: ``virtio`` where it is virtual, never ``NVMe``."""

    filesystem: str
    kind: str
    rotational: bool | None = None


class Machine(_Part):
    """What was measured, without anything that names its owner."""

    virtualised: str
    cpu_model: str
    cpu_threads: int
    cpu_flags: list[str]
    cache_bytes: int
    memory_bytes: int
    numa_nodes: int
    kernel: str
    huge_pages: str
    storage: Storage
    gpus: list[Gpu] = []
    clocks: list[Clock] = []


class Source(_Part):
    """What measured it. ``tree_sha256`` is over each program's sources, ``binary_sha256`` over what was built."""

    moesim: str
    commit: str | None
    tree_sha256: dict[Program, str]
    binary_sha256: dict[Program, str]
    host_cxx: str
    nvcc: str | None
    flags: list[str]


class Others(_Part):
    """Who else wanted the CPUs meanwhile, on average: other programs, and (where it is virtual) other machines."""

    busy_cpus: NotNegative
    stolen_cpus: NotNegative


class Run(_Part):
    """How it was run. ``load_average``: of the last minute, before and after; the suite's own work counts in it."""

    id: str
    started_utc: str
    duration_s: NotNegative
    level: Level
    argv: list[str]
    seed: int
    realtime: bool
    file_bytes: int
    load_average: list[NotNegative]
    others: Others | None = None


class Result(_Part):
    """One run of the suite. ``status``: ``partial`` where the budget or an interrupt ended it."""

    schema_: Annotated[str, Field(alias="schema")]
    status: Literal["complete", "partial"]
    run: Run
    source: Source
    machine: Machine
    rows: list[Row]
    skipped: list[Skipped]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def to_json(self) -> str:
        """The file's text: one line for each row, so that differences can be read."""
        content = self.model_dump(mode="json", by_alias=True)
        parts = [f" {json.dumps(key)}: {_block(value)}" for key, value in content.items()]
        return "{\n" + ",\n".join(parts) + "\n}\n"

    def skips_told(self) -> list[str]:
        """What was skipped, a line for each reason."""
        together: dict[str, list[Skipped]] = {}
        for skip in self.skipped:
            together.setdefault(skip.reason, []).append(skip)
        lines = []
        for reason, skips in together.items():
            names = ", ".join(dict.fromkeys(skip.bench for skip in skips))
            lines.append(f"{names}: {sum(skip.cases for skip in skips)} cases: {reason}")
        return lines


def _block(value: Any) -> str:
    if isinstance(value, list) and value:
        lines = (json.dumps(item, allow_nan=False, ensure_ascii=False) for item in value)
        return "[\n  " + ",\n  ".join(lines) + "\n ]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def read_result(path: Path) -> Result:
    """A result file.

    Raises:
        FileError: it can't be read.
        MicrobenchError: it is no result of the suite, truncated, of an unknown version, or has impossible numbers.
    """
    try:
        content = json.loads(read_text(path, MAX_BYTES), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise MicrobenchError.of(f"{path}:{error.lineno}", f"not valid JSON: {error.msg}", "is it whole?") from None
    except ValueError as error:
        raise MicrobenchError.of(str(path), f"{error}", "a result has finite numbers only") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        hint = f"this version reads {SCHEMA!r}; `moesim microbench run` writes it"
        raise MicrobenchError.of(str(path), f"is not a result that this version knows (schema {schema!r})", hint)
    try:
        return Result.model_validate(content)
    except ValidationError as error:
        faults = [
            Fault(f"{path}: {'.'.join(map(str, detail['loc']))}", detail["msg"]) for detail in error.errors()[:20]
        ]
        raise MicrobenchError(faults) from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
