"""Building: what is cached, what fails, and (where there is nvcc, and time) every kernel for every architecture."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from moesim.errors import MicrobenchError
from moesim.microbench import build as building
from moesim.microbench.build import ARCHITECTURES, build, sources_of, spilling, tree_sha256
from moesim.microbench.process import gpus_of
from moesim.microbench.suite import BENCHES

#: As ptxas prints it with -v.
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5quietPi' for 'sm_80'
ptxas info    : Function properties for _Z5quietPi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 472 bytes cmem[0]
ptxas info    : Compiling entry function '_Z5spillPi' for 'sm_90a'
ptxas info    : Function properties for _Z5spillPi
    8 bytes stack frame, 8 bytes spill stores, 36 bytes spill loads
ptxas info    : Compiling entry function '_Z5arrayPi' for 'sm_100'
ptxas info    : Function properties for _Z5arrayPi
    64 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A tree of sources with one host file, in place of the suite's own, and a cache of its own."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    (tmp_path / "src/host").mkdir(parents=True)
    (tmp_path / "src/shared").mkdir()
    (tmp_path / "src/shared/word.h").write_text('#define WORD "one"\n')
    (tmp_path / "src/host/main.cpp").write_text(
        '#include <cstdio>\n#include "../shared/word.h"\nint main() { std::puts(WORD); }\n'
    )
    monkeypatch.setattr(building, "SOURCES", tmp_path / "src")
    monkeypatch.setenv("MOESIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "src"


def said(built):
    return subprocess.run([built.path], capture_output=True, text=True, check=True).stdout.strip()


def test_a_program_is_built_once_and_again_when_a_header_changes(tree):
    compiled = []
    first = build("host", note=compiled.append)
    assert (said(first), compiled) == ("one", ["main.cpp"])
    assert build("host", note=compiled.append).path == first.path
    assert compiled == ["main.cpp"]
    before = tree_sha256("host")
    (tree / "shared/word.h").write_text('#define WORD "two"\n')
    assert said(build("host", note=compiled.append)) == "two"
    assert compiled == ["main.cpp"] * 2
    assert tree_sha256("host") != before


def test_a_warning_is_an_error_that_names_no_folder(tree):
    (tree / "host/main.cpp").write_text("int main() { int unused = 1; }\n")
    with pytest.raises(MicrobenchError, match=r"main\.cpp: does not compile: host/main\.cpp:1.*unused") as caught:
        build("host")
    assert str(tree) not in str(caught.value)
    assert not list((tree.parent / "cache/microbench").glob("*.tmp"))


def test_no_compiler_is_said(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MicrobenchError, match="no C\\+\\+ compiler found"):
        build("host")
    monkeypatch.setattr(building, "find_nvcc", lambda: None)
    with pytest.raises(MicrobenchError, match="pip install 'moesim\\[cuda\\]'"):
        build("cuda")


def test_kernels_that_use_local_memory_are_found():
    assert spilling(PTXAS) == ["_Z5spillPi (sm_90a)", "_Z5arrayPi (sm_100)"]


def test_the_wheels_are_pinned_together():
    """Else pip takes a newer nvvm, whose PTX the older ptxas refuses."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    wheels = dict(re.findall(r'"(nvidia-[\w-]+)==(\d+\.\d+)\.\d+"', text))
    compiling = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
    assert {wheels[name] for name in compiling} == {"13.0"}


@pytest.fixture(scope="module")
def program():
    """The CUDA program for every architecture: minutes of compiling, so only where the gate asks for it."""
    if not os.environ.get("MOESIM_REQUIRE_NVCC"):
        pytest.skip("minutes of compiling: set MOESIM_REQUIRE_NVCC to run it")
    return build("cuda")


def test_every_kernel_compiles_without_warnings_or_local_memory(nvcc, program):
    """Warnings are errors, and ``build`` refuses local memory; so what is there has none."""
    assert "nvcc 13.0" in program.toolchain.version
    assert spilling(program.printed) == []
    compiled = set(re.findall(r"Compiling entry function '[^']+' for '(\w+)'", program.printed))
    assert compiled == {f"sm_{name}" for name in ARCHITECTURES}
    assert program.kernels >= 3 * 60
    assert len(sources_of("cuda")) > 15


def test_without_a_gpu_the_program_says_so(nvcc, program):
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU here")
    for words in (["info"], ["copy"], ["replay", "--routing", "none"]):
        done = subprocess.run([program.path, *words], input="", capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout.startswith('{"error":"')
        assert "CUDA" in done.stdout
    with pytest.raises(MicrobenchError, match="no GPU"):
        gpus_of(program)
    linked = subprocess.run(["ldd", program.path], capture_output=True, text=True, check=True).stdout
    assert "cuda" not in linked  # the runtime is inside: no CUDA needs to be installed where it runs


def test_every_benchmark_has_its_place_in_the_program():
    main = (building.SOURCES / "cuda/main.cu").read_text()
    assert set(re.findall(r'\{"(\w+)", run_\w+\}', main)) == {b.name for b in BENCHES if b.program == "cuda"}
    main = (building.SOURCES / "host/main.cpp").read_text()
    assert set(re.findall(r'bench == "(\w+)"', main)) == {b.name for b in BENCHES if b.program == "host"}


def test_machine_code_is_what_was_meant(program):
    """Tensor cores in the tiled kernel, 16-byte loads in the matrix-vector kernel, nothing in local memory."""
    tool = building.find_tool("cuobjdump")
    if tool is None:
        pytest.fail("no cuobjdump: it comes with moesim[cuda]")
    environment = {**os.environ, "PATH": f"{Path(tool).parent}:{os.environ['PATH']}"}
    words = [tool, "-sass", "-arch", "sm_90a", str(program.path)]
    sass = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    kernels = dict(re.findall(r"Function : (\S+)\n(.*?)(?=\n\s*Function : |\Z)", sass, re.S))
    assert kernels
    local = [name for name, code in kernels.items() if re.search(r"\b(LDL|STL)\b", code)]
    assert not local
    tiled = [code for name, code in kernels.items() if "tiled" in name]
    assert tiled
    assert all("HMMA.16816.F32.BF16" in code for code in tiled)
    gemv = [code for name, code in kernels.items() if "gemv" in name and "FormatE0" in name]
    assert gemv
    assert all(re.search(r"LDG\.E\S*\.128", code) for code in gemv)
