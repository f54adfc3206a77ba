"""What the tests of the suite share: compilers, a synthetic machine, results made of its rows."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from moesim.microbench.build import SOURCES, find_nvcc


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """The CUDA program's index maps and cache, compiled with g++."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    library = tmp_path_factory.mktemp("emulate") / "emulate.so"
    words = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I", str(SOURCES)]
    subprocess.run([*words, str(Path(__file__).parent / "emulate.cpp"), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.part_begin_of.restype = ctypes.c_int64
    return loaded


@pytest.fixture(scope="session")
def nvcc():
    """The CUDA compiler; a machine that must have one (the gate) fails without it."""
    found = find_nvcc()
    if found is None and os.environ.get("MOESIM_REQUIRE_NVCC"):
        pytest.fail("MOESIM_REQUIRE_NVCC is set, and there is no nvcc")
    if found is None:
        pytest.skip("no nvcc here: pip install 'moesim[cuda]'")
    return found
