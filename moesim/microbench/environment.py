"""What a result says of the machine and of what measured it; nothing that names its owner, its place or its parts."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.microbench.build import SOURCES, Built, tree_sha256
from moesim.microbench.schema import Clock, Gpu, Machine, Others, Source, Storage
from moesim.microbench.suite.bench import Program
from moesim.version import __version__

#: Instruction sets that decide what the CPU benchmarks can run.
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
_CLOCKS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,pcie.link.gen.current,pcie.link.width.current"
_LIMITS = "power.limit,pcie.link.gen.max,pcie.link.width.max,driver_version,ecc.mode.current"


def machine_of(directory: Path, gpus: Sequence[Gpu], clocks: Sequence[Clock]) -> Machine:
    """The machine; ``directory`` is where the storage benchmarks had their file."""
    info = _read("/proc/cpuinfo")
    flags = set((re.search(r"^flags\s*:\s*(.*)$", info, re.M) or ["", ""])[1].split())
    model = re.search(r"^model name\s*:\s*(.*)$", info, re.M)
    return Machine(
        virtualised=_virtualised(flags),
        cpu_model=model[1].strip() if model else platform.machine(),
        cpu_threads=cpu_threads(),
        cpu_flags=[name for name in CPU_FLAGS if name in flags],
        cache_bytes=_cache_bytes(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        numa_nodes=max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))),
        kernel=re.sub(r"[^0-9.].*", "", platform.release()),
        huge_pages=(re.search(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/enabled")) or ["", "unknown"])[
            1
        ],
        storage=_storage(directory),
        gpus=list(gpus),
        clocks=list(clocks),
    )


def cpu_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def load_average() -> list[float]:
    """Over the last minute."""
    return [round(os.getloadavg()[0], 2)]


@dataclass(frozen=True)
class CpuTime:
    """Seconds since some start: of the clock, of CPUs that anyone kept busy, that the hypervisor took, and of ours."""

    wall_s: float
    busy_s: float
    stolen_s: float
    own_s: float

    @classmethod
    def now(cls) -> CpuTime:
        """From ``/proc/stat`` and what this process and its ended children used."""
        ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in _read("/proc/stat").splitlines()[0].split()[1:9]]
        user, nice, system, _, _, irq, soft_irq, stolen = ticks
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(usage.ru_utime + usage.ru_stime for usage in used)
        return cls(time.monotonic(), user + nice + system + irq + soft_irq, stolen, own)

    def others_since(self, start: CpuTime) -> Others:
        """How many CPUs others kept busy since ``start``, on average."""
        wall = max(1e-3, self.wall_s - start.wall_s)
        others = self.busy_s - start.busy_s - (self.own_s - start.own_s)
        return Others(
            busy_cpus=round(max(0.0, others) / wall, 3), stolen_cpus=round((self.stolen_s - start.stolen_s) / wall, 3)
        )


def source_of(built: Mapping[Program, Built]) -> Source:
    """What was built, from what, by what."""
    cuda = built.get("cuda")
    return Source(
        moesim=__version__,
        commit=_commit(),
        tree_sha256={program: tree_sha256(program) for program in sorted(built)},
        binary_sha256={name: program.sha256 for name, program in sorted(built.items())},
        host_cxx=built["host"].toolchain.version if "host" in built else "none",
        nvcc=cuda.toolchain.version if cuda else None,
        flags=[flag for program in built.values() for flag in program.toolchain.compile_flags],
    )


def gpu_from(described: Mapping[str, Any]) -> Gpu:
    """A device as the program described it, with what ``nvidia-smi`` adds."""
    index = int(described["index"])
    extra = _smi(_LIMITS, index)
    numbers = [_number(value) for value in extra]
    return Gpu(
        **{key: described[key] for key in ("index", "name", "cc", "sm_count", "memory_bytes", "l2_bytes")},
        **{key: described[key] for key in ("cuda_runtime", "async_engines", "ecc", "unified")},
        driver=extra[3] if len(extra) > 3 else str(described["driver"]),
        power_limit_w=numbers[0] if numbers else None,
        pcie_gen_max=_whole(numbers[1]) if len(numbers) > 1 else None,
        pcie_width_max=_whole(numbers[2]) if len(numbers) > 2 else None,
    )


def clock_at(t_s: float, when: str) -> Clock | None:
    """The first GPU's clocks, power, temperature and link now; None without ``nvidia-smi``."""
    values = [_number(value) for value in _smi(_CLOCKS, 0)]
    if len(values) < 6:
        return None
    sm, memory, power, temperature, generation, width = values[:6]
    return Clock(
        t_s=round(t_s, 2),
        when=when,
        sm_mhz=sm,
        mem_mhz=memory,
        power_w=power,
        temp_c=temperature,
        pcie_gen=_whole(generation),
        pcie_width=_whole(width),
    )


def architecture_here() -> str | None:
    """The first GPU's compute capability as nvcc names it, ``"90a"`` for Hopper; None where there is no GPU."""
    values = _smi("compute_cap", 0)
    if not values or not re.fullmatch(r"\d+\.\d", values[0]):
        return None
    name = values[0].replace(".", "")
    return "90a" if name == "90" else name


def cuda_driver_found() -> bool:
    """Whether this machine has NVIDIA's driver library, without which no CUDA program finds a GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def cublas_library() -> str | None:
    """The cuBLAS that came with Python packages (as PyTorch's), which stands on no loader path; None without one."""
    wheels = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    found = [path for pattern in ("cu*/lib", "cublas/lib") for path in sorted(wheels.glob(f"{pattern}/libcublas.so.*"))]
    return str(found[-1]) if found else None


def _smi(query: str, index: int) -> list[str]:
    """The fields of one GPU as ``nvidia-smi`` prints them; none where it isn't there or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", f"--id={index}", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [part.strip() for part in done.stdout.strip().split(",")] if done.returncode == 0 and done.stdout else []


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _virtualised(cpu_flags: set[str]) -> str:
    detect = shutil.which("systemd-detect-virt")
    if detect is not None:
        found = subprocess.run([detect, "--vm"], capture_output=True, text=True, check=False).stdout.strip()
        if found:
            return found
    return "unknown hypervisor" if "hypervisor" in cpu_flags else "none"


def _cache_bytes() -> int:
    """Of the largest cache of CPU 0; 0 where it isn't told."""
    sizes = [_read(str(path)).strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    factors = {"K": 2**10, "M": 2**20}
    return max((int(size[:-1]) * factors[size[-1]] for size in sizes if size[-1:] in factors), default=0)


def _storage(directory: Path) -> Storage:
    kind, rotational = "unknown", None
    device = os.stat(directory).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if block.exists():
        real = block.resolve()
        name, whole = str(real), real if (real / "queue").is_dir() else real.parent
        kind = next(
            (known for known in ("virtio", "nvme", "sd", "mmc", "zram", "md", "dm-") if f"/{known}" in name), "other"
        )
        spins = _read(str(whole / "queue" / "rotational")).strip()
        rotational = spins == "1" if spins else None
    return Storage(filesystem=_filesystem(directory), kind=kind, rotational=rotational)


def _filesystem(directory: Path) -> str:
    """The type of the file system that holds ``directory``."""
    best, kind, real = "", "unknown", str(directory.resolve())
    for line in _read("/proc/mounts").splitlines():
        fields = line.split()
        if len(fields) > 2 and (real + "/").startswith(fields[1].rstrip("/") + "/") and len(fields[1]) >= len(best):
            best, kind = fields[1], fields[2]
    return kind


def _commit() -> str | None:
    """The commit of the sources, ``dirty:`` before it where they differ from it; None outside a clone."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([git, "-C", str(SOURCES), *words], capture_output=True, text=True, check=False)

    head = ask("rev-parse", "HEAD")
    if head.returncode != 0:
        return None
    changed = ask("status", "--porcelain", "--", str(SOURCES)).stdout.strip()
    return ("dirty:" if changed else "") + head.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
