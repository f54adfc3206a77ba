"""A machine with known constants: rows as it would measure them, exactly or with noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moesim.microbench.forms import Constants
from moesim.microbench.models import model_of
from moesim.microbench.runner import row_of
from moesim.microbench.schema import SCHEMA, Gpu, Machine, Result, Row, Run, Source, Storage
from moesim.microbench.suite import bench_named
from moesim.microbench.suite.bench import Case, Sizing

SIZING = Sizing(cpu_threads=8, file_bytes=2**30)


def line(case: Case, seconds: Sequence[float], **fields: Any) -> dict[str, Any]:
    """What a program prints for a case."""
    return {
        "case": dict(case),
        "impl": "ce",
        "warmup": 3,
        "batch": 1,
        "bytes": float(case.get("bytes", 0)),
        "flops": 0.0,
        "cpu_share": 1.0,
        "checked": True,
        "flags": [],
        "values": {},
        "samples_us": [value * 1e6 for value in seconds],
        **fields,
    }


def rows_of(
    bench: str,
    constants: Mapping[str, Constants] | Constants,
    *,
    noise: float = 0.0,
    level: str = "full",
    keep: Callable[[Case], bool] | None = None,
    **fields: Any,
) -> list[Row]:
    """Rows of a benchmark's cases on a machine whose groups have these constants (one mapping: all groups)."""
    random = np.random.default_rng(7)
    rows = []
    for case in bench_named(bench).cases(level, SIZING):
        if keep is not None and not keep(case):
            continue
        extra = {key: value(case) if callable(value) else value for key, value in fields.items()}
        blank = row_of(bench_named(bench), line(case, [1.0], **extra))
        model = model_of(blank)
        own = constants.get(model.group(blank)) if all(isinstance(c, dict) for c in constants.values()) else constants
        if own is None:
            continue
        exact = float(model.form.seconds(model.columns([blank]), own)[0])
        samples = exact * np.exp(noise * random.standard_normal(20))
        rows.append(row_of(bench_named(bench), line(case, samples.tolist(), **extra)))
    return rows


def result_of(rows: Sequence[Row], gpus: Sequence[Gpu] = ()) -> Result:
    """A result of these rows."""
    return Result(
        schema_=SCHEMA,
        status="complete",
        run=Run(
            id="0",
            started_utc="2026-01-01T00:00:00Z",
            duration_s=1,
            level="full",
            argv=[],
            seed=1,
            realtime=False,
            file_bytes=2**30,
            load_average=[0.0, 0.0],
        ),
        source=Source(
            moesim="0",
            commit=None,
            tree_sha256={"host": "0" * 64},
            binary_sha256={},
            host_cxx="g++",
            nvcc=None,
            flags=[],
        ),
        machine=Machine(
            virtualised="none",
            cpu_model="Test CPU",
            cpu_threads=8,
            cpu_flags=["avx2"],
            cache_bytes=2**25,
            memory_bytes=2**35,
            numa_nodes=1,
            kernel="6.1",
            huge_pages="always",
            storage=Storage(filesystem="ext4", kind="nvme", rotational=False),
            gpus=list(gpus),
        ),
        rows=list(rows),
        skipped=[],
    )
