"""Building the two programs with g++ and nvcc alone; what is built is kept under the hash of all that went into it.

The host program needs g++ (``$CXX``). The CUDA program needs nvcc: ``$MOESIM_NVCC``, the one on the path,
``/usr/local/cuda*``, or that of the extra ``moesim[cuda]``. Warnings are errors in both, and a kernel that spills
registers, or keeps an array in local memory, fails the build.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from moesim.errors import MicrobenchError
from moesim.microbench.suite.bench import Program

SOURCES = Path(__file__).parent / "src"
NAMES: dict[Program, str] = {"host": "moesim-hostbench", "cuda": "moesim-bench"}
HOST_FLAGS = ("-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-Wno-psabi")
#: Warnings of the CUDA headers' generated stubs are not ours.
CUDA_FLAGS = (
    "-std=c++17",
    "-O3",
    "-Werror=all-warnings",
    "-Xptxas=-v,--warn-on-spills",
    "-Xcompiler=-Wall,-Wextra,-Werror,-Wno-psabi,-Wno-unused-parameter",
)
#: Compute capabilities that the suite is built for where none is named; ``run`` builds for the GPU that it finds.
ARCHITECTURES = ("80", "90a", "100")
_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_FUNCTION = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")


@dataclass(frozen=True)
class Toolchain:
    """A compiler, what it calls itself, and what it is called with."""

    compiler: str
    version: str
    compile_flags: tuple[str, ...]
    link_flags: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A program, built: where it is, its hash, what made it, and what the compilers printed of each file."""

    program: Program
    path: Path
    sha256: str
    toolchain: Toolchain
    printed: str = field(default="", repr=False)

    @property
    def kernels(self) -> int:
        """Entry functions of the GPU's program, over all architectures."""
        return len(_FUNCTION.findall(self.printed))


def sources_of(program: Program) -> list[Path]:
    """The files that are compiled, sorted."""
    return sorted((SOURCES / program).glob("*.cu" if program == "cuda" else "*.cpp"))


def tree_sha256(program: Program) -> str:
    """Of all that a program is made from: names and contents of its own sources and of the shared ones."""
    files = [path for path in _tree() if path.relative_to(SOURCES).parts[0] in (program, "shared")]
    return _digest(part for path in files for part in (str(path.relative_to(SOURCES)), path.read_bytes()))


def build(
    program: Program, architectures: Sequence[str] = ARCHITECTURES, note: Callable[[str], None] = lambda _: None
) -> Built:
    """The program, built where it was not built from the same sources, flags and compiler before.

    Args:
        note: called with each file that is being compiled.

    Raises:
        MicrobenchError: no compiler, or it failed; says which, and what it printed.
    """
    toolchain = host_toolchain() if program == "host" else cuda_toolchain(architectures)
    headers = [path for path in _tree() if path.suffix in (".h", ".cuh") and path.parent.name in (program, "shared")]
    common = _digest(
        [
            toolchain.version,
            *toolchain.compile_flags,
            *(part for path in headers for part in (path.name, path.read_bytes())),
        ]
    )
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(lambda source: _compiled(source, toolchain, common, folder, note), sources_of(program)))
    path = folder / f"{NAMES[program]}-{_digest([*(o.name for o in objects), *toolchain.link_flags])[:16]}"
    if not path.exists():
        _command([toolchain.compiler, *map(str, objects), *toolchain.link_flags], path, f"linking {NAMES[program]}")
    printed = "".join(path.with_suffix(".log").read_text() for path in objects)
    return Built(program, path, hashlib.sha256(path.read_bytes()).hexdigest(), toolchain, printed)


def cache_folder() -> Path:
    """``$MOESIM_CACHE``, else the user's cache folder."""
    if own := os.environ.get("MOESIM_CACHE"):
        return Path(own).absolute() / "microbench"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "moesim" / "microbench"


def host_toolchain() -> Toolchain:
    """g++ with its flags.

    Raises:
        MicrobenchError: there is none.
    """
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        raise MicrobenchError.of("g++", "no C++ compiler found", "install g++ 12 or newer, or set CXX")
    return Toolchain(compiler, _version([compiler, "--version"]), HOST_FLAGS, ("-pthread",))


def cuda_toolchain(architectures: Sequence[str] = ARCHITECTURES) -> Toolchain:
    """nvcc with its flags for some compute capabilities.

    Raises:
        MicrobenchError: there is none.
    """
    compiler = find_nvcc()
    if compiler is None:
        hint = "pip install 'moesim[cuda]', or set MOESIM_NVCC"
        raise MicrobenchError.of("nvcc", "no CUDA compiler found", hint)
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures]
    root = Path(compiler).resolve().parent.parent
    folders = ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")
    libraries = [f"-L{root / name}" for name in folders if (root / name).is_dir()]
    version = _version([compiler, "--version"])
    return Toolchain(compiler, version, (*CUDA_FLAGS, *codes), (*codes, *libraries, "-ldl", "-lpthread"))


def find_nvcc() -> str | None:
    """The CUDA compiler that is there; None where there is none."""
    wheels = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    candidates = [
        os.environ.get("MOESIM_NVCC"),
        shutil.which("nvcc"),
        *(str(path) for path in sorted(Path("/usr/local").glob("cuda*/bin/nvcc"))),
        *(str(path) for path in sorted(wheels.glob("cu*/bin/nvcc"))),
    ]
    return next((found for name in candidates if name and (found := shutil.which(name))), None)


def find_tool(name: str) -> str | None:
    """Another program of the CUDA toolkit, as ``cuobjdump``: beside nvcc, or on the path; None where there is none."""
    nvcc = find_nvcc()
    beside = Path(nvcc).parent / name if nvcc else None
    return str(beside) if beside and beside.is_file() else shutil.which(name)


def _compiled(source: Path, toolchain: Toolchain, common: str, folder: Path, note: Callable[[str], None]) -> Path:
    """The object of one source, from the cache or made; what the compiler printed stands beside it."""
    target = folder / f"{source.stem}-{_digest([common, source.name, source.read_bytes()])[:16]}.o"
    log = target.with_suffix(".log")
    if target.exists() and log.exists():
        return target
    note(source.name)
    relative = str(source.relative_to(SOURCES))  # so that neither messages nor objects have this machine's folders
    printed = _command([toolchain.compiler, *toolchain.compile_flags, "-c", relative], target, source.name)
    if spilled := spilling(printed):
        target.unlink(missing_ok=True)
        hint = "fewer registers at once, and loops over arrays unrolled"
        raise MicrobenchError.of(source.name, f"kernels use local memory: {', '.join(spilled)}", hint)
    log.write_text(printed)
    return target


def spilling(printed: str) -> list[str]:
    """Kernels that spill registers or keep arrays in local memory, from what ``ptxas -v`` printed."""
    found, current = [], "?"
    for line in printed.splitlines():
        if match := _FUNCTION.search(line):
            current = f"{match[1]} ({match[2]})"
        elif (match := _LOCAL.search(line)) and any(number != "0" for number in match.groups()):
            found.append(current)
    return found


def _command(words: Sequence[str], target: Path, what: str) -> str:
    """Run a compiler; its output file appears under its own name only when it is whole."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    done = subprocess.run([*words, "-o", str(partial)], cwd=SOURCES, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        lines = [line for line in printed.splitlines() if "error" in line or "fatal" in line] or printed.splitlines()
        raise MicrobenchError.of(what, "does not compile: " + "\n".join(lines[:6]), f"by {Path(words[0]).name}")
    os.replace(partial, target)
    return printed


def _version(words: Sequence[str]) -> str:
    try:
        printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise MicrobenchError.of(words[0], f"can't be run: {error}", "is it the compiler?") from None
    lines = printed.strip().splitlines()
    release = next((match[1] for line in lines if (match := re.search(r"\bV(\d+\.\d+\.\d+)", line))), None)
    return f"nvcc {release}" if release else lines[0]


def _tree() -> Iterable[Path]:
    return sorted(path for path in SOURCES.rglob("*") if path.suffix in (".h", ".cuh", ".cpp", ".cu"))


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
