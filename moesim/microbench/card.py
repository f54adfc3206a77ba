"""A machine's card from a result: the fits, and the parts that follow from them.

What a part needs and the suite did not measure comes from the shipped card of the same GPU, with its own kind and
source; where there is none, the part is left out. Nothing is called measured that was not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from moesim.hardware import GpuSpec, MachineSpec, available, load_gpu
from moesim.hardware.machine import MachineFit
from moesim.microbench.fit import DIGITS, fit_rows, require_rows, rounded
from moesim.microbench.forms import FORMS, Constants
from moesim.microbench.schema import Gpu, Result, read_result

Fields = dict[str, Any]
#: Dimension -> the unit that cards are written in, and how many SI units it is.
_UNITS = {
    "time": ("us", 1e-6),
    "bandwidth": ("GB/s", 1e9),
    "compute_rate": ("GFLOPS", 1e9),
    "io_rate": ("IOPS", 1.0),
    "bytes": ("B", 1.0),
}
#: What a drive's card calls expert-sized reads: bytes, and requests in flight.
_EXPERT_READ = (8 * 2**20, 4)


def card_text(path: Path, name: str) -> str:
    """The YAML of the card that a result file gives.

    Raises:
        FileError, MicrobenchError: the file can't be read or fitted.
    """
    result = read_result(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    fields = card_fields(result, sha256, name)
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def card_fields(result: Result, sha256: str, name: str) -> Fields:
    """The card's content.

    Raises:
        MicrobenchError: no row of the result can be fitted.
    """
    require_rows(result)
    source = f"moesim microbench, result {sha256[:8]} of {result.run.started_utc[:10]}"
    fits = fit_rows(result.rows, source)
    unfit = sum(row.split == "fit" and not row.fits for row in result.rows)
    fields: Fields = {
        "name": name,
        "title": _title(result),
        "notes": _notes(result),
        "origin": {
            "result_sha256": sha256,
            "suite_sha256": dict(sorted(result.source.tree_sha256.items())),
            "date": result.run.started_utc[:10],
            "level": result.run.level,
            "status": result.status,
            "rows": len(result.rows),
            "unfit_rows": unfit,
        },
    }
    parts = _Parts(result, {(fit.bench, fit.group): fit.constants for fit in fits}, name, source)
    for family in MachineSpec.PARTS:
        part = getattr(parts, family)()
        if part is not None:
            fields[family] = part
    fields["fits"] = [_fit_fields(fit) for fit in fits]
    return fields


def _title(result: Result) -> str:
    machine = result.machine
    virtual = "" if machine.virtualised == "none" else f", virtual ({machine.virtualised})"
    gpu = f", {machine.gpus[0].name}" if machine.gpus else ""
    memory = round(machine.memory_bytes / 2**30)
    return f"{machine.cpu_model}, {machine.cpu_threads} CPUs, {memory} GiB{gpu}{virtual}, measured by moesim"


def _notes(result: Result) -> list[str]:
    machine = result.machine
    notes = [f"storage: {machine.storage.filesystem} on {machine.storage.kind}"]
    if machine.virtualised != "none":
        notes.append("a virtual machine: its CPUs, memory bandwidth and disk are shares of a larger one")
    if not machine.gpus:
        notes.append("measured without a GPU: this card says nothing of one")
    return notes


def _fit_fields(fit: MachineFit) -> Fields:
    """A fit as the card holds it: constants with units, ranges as whole numbers where they are."""
    dimensions = {constant.name: constant.dimension for constant in FORMS[fit.form].constants}
    fields = fit.model_dump()
    fields["constants"] = {key: quantity(value, dimensions[key]) for key, value in fit.constants.items()}
    fields["fitted_range"] = {key: [_plain(low), _plain(high)] for key, (low, high) in fit.fitted_range.items()}
    return fields


def quantity(value: float, dimension: str) -> str | float:
    """A number as cards write it: with its unit, or bare where it has none."""
    if dimension == "1":
        return value
    unit, factor = _UNITS[dimension]
    return f"{value / factor:.{DIGITS}g} {unit}"


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else rounded(value)


class _Parts:
    """The parts of a machine, as fields of their specs; each None where it was not measured."""

    def __init__(self, result: Result, constants: Mapping[tuple[str, str], Constants], name: str, source: str):
        self._result, self._constants, self._name, self._source = result, constants, name, source

    def cpu(self) -> Fields | None:
        """All threads' bandwidth from ``dram read``, arithmetic from ``cpu_expert``'s bf16 kernels."""
        read = self._constants.get(("dram", "read"))
        rates = {
            impl: constants["rate"] * self._result.machine.cpu_threads
            for (bench, impl), constants in self._constants.items()
            if bench == "cpu_expert"
        }
        wide = {impl: rate for impl, rate in rates.items() if not impl.endswith(("int4", "int8"))}
        if read is None or not wide:
            return None
        best = max(wide, key=lambda impl: (wide[impl], impl))
        threads = self._result.machine.cpu_threads
        compute = {"bf16": self._measured(wide[best], "compute_rate", f"cpu_expert {best}: rate x {threads} threads")}
        if "amx_int8" in rates:
            compute["int8"] = self._measured(rates["amx_int8"], "compute_rate", "cpu_expert amx_int8: rate x threads")
        return {
            **self._named("CPU and memory"),
            "cores": self._measured(threads, None, "CPUs that the suite could use"),
            "memory_bandwidth": self._measured(_streamed(read, threads), "bandwidth", f"dram read, {threads} threads"),
            "memory_efficiency": self._measured(1.0, None, "the bandwidth above is what reads achieve"),
            "compute": compute,
            "compute_efficiency": self._measured(1.0, None, "the rate above is what an expert's kernels achieve"),
            **self._staging(),
        }

    def _staging(self) -> Fields:
        staged = self._constants.get(("stage", "memcpy"))
        if staged is None:
            return {}
        return {"thread_copy": self._measured(_streamed(staged, 1), "bandwidth", "stage memcpy, fitted: one thread")}

    def storage(self) -> Fields | None:
        """From random reads through io_uring."""
        constants = self._constants.get(("file", "uring random"))
        if constants is None:
            return None
        seconds = FORMS["requests"].seconds
        size, depth = _EXPERT_READ
        reached = size / float(seconds(_row(bytes=size, depth=depth), constants)[0])
        small = float(seconds(_row(bytes=4096, depth=1), constants)[0])
        efficiency = min(1.0, rounded(reached / constants["bandwidth"]))
        told = f"file uring random, fitted: 8 MiB, {depth} in flight"
        return {
            **self._named(f"storage ({self._result.machine.storage.kind})"),
            "read_bandwidth": self._measured(constants["bandwidth"], "bandwidth", "file uring random, fitted"),
            "read_efficiency": self._measured(efficiency, None, told),
            "read_latency": self._measured(small, "time", "file uring random, fitted: 4 KiB alone"),
            "iops": self._measured(constants["iops"], "io_rate", "file uring random, fitted"),
        }

    def link(self) -> Fields | None:
        """From copies to the GPU; the line's raw rate is that of the generation and width that the GPU reports."""
        constants, gpu = self._constants.get(("copy", "h2d")), self._gpu()
        if constants is None or gpu is None or not gpu.pcie_gen_max or not gpu.pcie_width_max:
            return None
        raw = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.56}[gpu.pcie_gen_max] * gpu.pcie_width_max * 1e9
        line = f"PCI Express {gpu.pcie_gen_max}, {gpu.pcie_width_max} lanes"
        fields = {
            **self._named("host link"),
            "bandwidth_raw": {"value": quantity(raw, "bandwidth"), "kind": "datasheet", "source": line},
            "bandwidth": self._measured(min(constants["bandwidth"], raw), "bandwidth", "copy h2d, fitted"),
            "latency": self._measured(constants["latency"] + constants["ramp"], "time", "copy h2d: latency + ramp"),
        }
        both = self._constants.get(("copy_bidir", "both h2d 1"))
        if both is not None:
            reached = min(both["bandwidth"], constants["bandwidth"], raw)
            fields["bandwidth_both_ways"] = self._measured(reached, "bandwidth", "copy_bidir both h2d, fitted")
        fields["gap"] = self._measured(constants["per_segment"], "time", "copy h2d: per_segment")
        for field, group in (("pageable_bandwidth", "copy pageable"), ("register_bandwidth", "pin register")):
            fit = self._constants.get(("copy_host_kind", group))
            if fit is not None:
                fields[field] = self._measured(fit["bandwidth"], "bandwidth", f"copy_host_kind {group}, fitted")
        return fields

    def gpu(self) -> Fields | None:
        """The shipped card of the same GPU, with what was measured in place of its own."""
        gpu = self._gpu()
        base = None if gpu is None else shipped_gpu(gpu)
        if base is None:
            return None
        fields = _as_card(base) | self._named(base.title) | {"notes": [f"datasheet numbers from the card {base.name}"]}
        read, launch = self._constants.get(("hbm", "read")), self._constants.get(("launch", "empty"))
        rates = [
            c["rate"] for (bench, group), c in self._constants.items() if bench == "expert_ffn" and "bf16" in group
        ]
        if read is not None:
            share = min(1.0, rounded(read["bandwidth"] / base.memory_bandwidth.value))
            fields["memory_efficiency"] = self._measured(share, None, "hbm read over the datasheet's bandwidth")
        if launch is not None:
            fields["kernel_launch"] = self._measured(launch["first"], "time", "launch empty, fitted")
        if rates and "bf16" in base.compute:
            share = min(1.0, rounded(max(rates) / base.compute["bf16"].value))
            fields["compute_efficiency"] = self._measured(
                share, None, "expert_ffn bf16, the fastest, over the datasheet"
            )
        return fields

    def _gpu(self) -> Gpu | None:
        return self._result.machine.gpus[0] if self._result.machine.gpus else None

    def _named(self, what: str) -> Fields:
        return {"name": self._name, "title": f"{what} of {self._result.machine.cpu_model}, measured by moesim"}

    def _measured(self, value: float, dimension: str | None, what: str) -> Fields:
        shown = quantity(value, dimension) if dimension else value
        return {"value": shown, "kind": "measured", "source": f"{self._source}: {what}"}


def shipped_gpu(gpu: Gpu) -> GpuSpec | None:
    """The shipped card of a device by the name that its driver gives it, and its memory; None where none fits.

    All words of the card's name must stand in the device's. For H100, H200 and B200 drivers don't say
    "SXM", but "PCIe" or "NVL" where they go into a slot.
    """
    words = set(re.findall(r"[a-z0-9]+", gpu.name.lower())) | {f"{round(gpu.memory_bytes / 2**30)}gb"}
    if any(word.startswith("sxm") for word in words) or (words & {"hbm3", "h200", "b200"} and "nvl" not in words):
        words |= {"sxm"}
    found = [name for name in available()["gpu"] if set(name.split("-")) <= words]
    return load_gpu(max(found, key=lambda name: (name.count("-"), name))) if found else None


def _as_card(spec: GpuSpec) -> Fields:
    """A spec's fields as a card writes them: quantities again."""
    document = yaml.safe_load(
        (Path(__file__).parents[1] / "hardware" / "cards" / "gpu" / f"{spec.name}.yaml").read_text()
    )
    return dict(document)


def _streamed(constants: Constants, threads: int) -> float:
    """Bytes per second that so many threads reach, by the form ``stream``."""
    return 1e9 / float(FORMS["stream"].seconds(_row(bytes=1e9, threads=threads), {**constants, "latency": 1e-11})[0])


def _row(**columns: float) -> Mapping[str, Any]:
    return {name: np.array([float(value)]) for name, value in columns.items()}
