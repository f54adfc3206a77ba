"""Which form predicts which benchmark: how its rows are grouped, and the columns that the form reads from a row.

Rows of one group share their constants. A group may also hold rows that are only predicted: blocks at random places
have no constants of their own but those of reading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.microbench.forms import FORMS, Columns, Form
from moesim.microbench.schema import Row

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Model:
    """How one benchmark is predicted."""

    bench: str
    form: Form
    group: Callable[[Row], str]
    numbers: Callable[[Row], Numbers]

    def columns(self, rows: Sequence[Row]) -> Columns:
        """The form's columns over rows."""
        numbers = [self.numbers(row) for row in rows]
        return {name: np.array([float(of_row[name]) for of_row in numbers]) for name in self.form.columns}


def _case(*names: str) -> Callable[[Row], Numbers]:
    """Columns that stand in the case under their own name."""
    return lambda row: {name: float(row.case[name]) for name in names}


def _joined(*names: str) -> Callable[[Row], str]:
    """A group named by what the case says."""
    return lambda row: " ".join(str(row.case[name]) for name in names)


def _dram_group(row: Row) -> str:
    return "read" if row.case["op"] == "blocks" else str(row.case["op"])


def padded_tokens(tokens: Sequence[int], step: float) -> float:
    """Tokens in whole steps: what a kernel works through."""
    return float(sum(-(-count // step) * step for count in tokens))


#: Tokens that a CPU kernel takes at a time.
_CPU_STEP = {"amx_bf16": 16.0, "amx_int8": 16.0}


def _cpu_expert(row: Row) -> Numbers:
    tokens, weights = int(row.case["tokens"]), 3.0 * int(row.case["hidden"]) * int(row.case["inter"])
    padded = padded_tokens([tokens], _CPU_STEP.get(row.impl, 1.0))
    return {
        "bytes": row.bytes,
        "weights": weights,
        "padded_flops": 2 * weights * padded,
        "threads": float(row.case["threads"]),
    }


def _gpu_expert(row: Row) -> Numbers:
    tokens, weights = int(row.case["tokens"]), 3.0 * int(row.case["hidden"]) * int(row.case["inter"])
    return {"bytes": row.bytes, "padded_flops": 2 * weights * padded_tokens([tokens], _token_step(row))}


def _token_step(row: Row) -> float:
    return row.values.get("token_step") or 1.0


def _grouped(row: Row) -> Numbers:
    counts = [int(count) for count in str(row.case["counts"]).split(",")]
    weights = 3.0 * int(row.case["hidden"]) * int(row.case["inter"])
    return {
        "bytes": row.bytes,
        "padded_flops": 2 * weights * padded_tokens(counts, _token_step(row)),
        "launches": 1.0 if row.case["mode"] == "one" else float(len(counts)),
        "experts": float(len(counts)),
    }


def _hbm_group(row: Row) -> str:
    return "read" if row.case["op"] == "blocks" else str(row.case["op"])


def _hbm(row: Row) -> Numbers:
    return {"bytes": float(row.case["bytes"]), "cold": float(row.case["op"] == "blocks")}


def _queue(row: Row) -> Numbers:
    """``queued``: bytes that were on the link's queue before the urgent copy."""
    case = {name: int(value) for name, value in row.case.items()}
    queued = case["ahead"] * case["prefetch"]
    if case["window"]:
        queued = min(queued, case["window"] * case["chunk"])
    return {"bytes": float(case["bytes"]), "queued": float(queued)}


def _roundtrip(row: Row) -> Numbers:
    """``bytes=0`` is the way to the host and back without a copy."""
    return {**_case("tokens", "bytes")(row), "copies": float(row.case["bytes"] != 0)}


def _overlap_group(row: Row) -> str:
    if row.case["time"] == "kernel":
        return f"kernel {row.case['kernel']}"
    return "copy d2h" if row.case["copy"] == "d2h" else "copy h2d"


def _copy_beside(row: Row) -> Numbers:
    companions = {name: float(row.case["kernel"] == name) for name in ("hbm", "gemm", "tiny")}
    return {"bytes": float(row.case["bytes"]), **companions, "both": float(row.case["copy"] == "both")}


def _kernel_beside(row: Row) -> Numbers:
    return {name: float(row.case["copy"] in (name, "both")) for name in ("h2d", "d2h")}


def _file_gpu(row: Row) -> Numbers:
    return _case("bytes", "chunk", "depth")(row)


def _model(bench: str, form: str, group: Callable[[Row], str], numbers: Callable[[Row], Numbers]) -> Model:
    return Model(bench, FORMS[form], group, numbers)


_COPY_BESIDE = _model("overlap", "copy_beside", _overlap_group, _copy_beside)
_KERNEL_BESIDE = _model("overlap", "kernel_beside", _overlap_group, _kernel_beside)
_MODELS: dict[str, Model] = {
    model.bench: model
    for model in (
        _model("dram", "stream", _dram_group, _case("bytes", "threads")),
        _model("cpu_expert", "cpu_expert", lambda row: row.impl, _cpu_expert),
        _model("file", "requests", _joined("api", "pattern"), _case("bytes", "depth")),
        _model("mmap", "linear", _joined("state", "advice"), _case("bytes")),
        _model("stage", "stream", _joined("via"), _case("bytes", "threads")),
        _model("copy", "copy", _joined("dir"), _case("bytes", "segments")),
        _model("copy_host_kind", "linear", _joined("op", "kind"), _case("bytes")),
        _model("copy_bidir", "linear", _joined("mode", "dir", "streams"), _case("bytes")),
        _model("copy_queue", "queue", _joined("priority"), _queue),
        _model("zero_copy", "linear", _joined("op"), _case("bytes")),
        _model("launch", "nodes", _joined("op"), _case("nodes")),
        _model("router_roundtrip", "turnaround", lambda _: "all", _roundtrip),
        _model("expert_ffn", "gpu_expert", lambda row: f"{row.impl} {row.case['format']}", _gpu_expert),
        _model("grouped", "grouped", lambda row: f"{row.impl} {row.case['mode']}", _grouped),
        _model("hbm", "cached", _hbm_group, _hbm),
        _model("d2d", "linear", _joined("op"), _case("bytes")),
        _model("router_permute", "tokens", _joined("op", "experts", "topk"), _case("tokens")),
        _model("dequant", "linear", _joined("format"), _case("bytes")),
        _model("alloc", "linear", _joined("op"), _case("bytes")),
        _model("file_to_gpu", "pipeline", _joined("via"), _file_gpu),
    )
}


def model_of(row: Row) -> Model | None:
    """What predicts a row; None for ``replay``, which the simulator itself predicts."""
    if row.bench == "overlap":
        return _KERNEL_BESIDE if row.case["time"] == "kernel" else _COPY_BESIDE
    return _MODELS.get(row.bench)


def group_key(row: Row) -> tuple[str, str]:
    """(bench, group) of a row that a model predicts."""
    model = model_of(row)
    return row.bench, "" if model is None else model.group(row)
