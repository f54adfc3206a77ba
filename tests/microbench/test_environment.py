"""What a result says of a machine: a GPU as the driver's tool tells it, and nothing where there is no such tool."""

from __future__ import annotations

import os

import pytest

from moesim.microbench import environment
from moesim.microbench.environment import CpuTime, architecture_here, clock_at, gpu_from, machine_of

#: As nvidia-smi answers on an H100, asked for fields in CSV without units.
SMI = """\
#!/bin/sh
case "$*" in
  *compute_cap*) echo "9.0" ;;
  *clocks.sm*) echo "1980, 2619, 118.42, 34, 5, 16" ;;
  *power.limit*) echo "700.00, 5, 16, 580.95.05, Enabled" ;;
  *) exit 1 ;;
esac
"""
DESCRIBED = {
    "index": 0,
    "name": "NVIDIA H100 80GB HBM3",
    "cc": "9.0",
    "memory_bytes": 85_017_493_504,
    "sm_count": 132,
    "l2_bytes": 52_428_800,
    "cuda_runtime": 13000,
    "async_engines": 3,
    "ecc": True,
    "unified": False,
    "driver": "CUDA 13000",
}


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A function: the text of a program that is found as ``nvidia-smi``."""

    def install(text):
        path = tmp_path / "nvidia-smi"
        path.write_text(text)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def test_a_gpu_and_its_clocks(smi):
    smi(SMI)
    gpu = gpu_from(DESCRIBED)
    assert (gpu.driver, gpu.power_limit_w, gpu.pcie_gen_max, gpu.pcie_width_max) == ("580.95.05", 700.0, 5, 16)
    clock = clock_at(1.234, "before")
    assert (clock.sm_mhz, clock.mem_mhz, clock.power_w, clock.temp_c) == (1980, 2619, 118.42, 34)
    assert (clock.pcie_gen, clock.pcie_width, clock.t_s) == (5, 16, 1.23)
    assert architecture_here() == "90a"


@pytest.mark.parametrize(("capability", "name"), [("8.0", "80"), ("8.9", "89"), ("10.0", "100"), ("12.0", "120")])
def test_architectures(smi, capability, name):
    smi(f"#!/bin/sh\necho {capability}\n")
    assert architecture_here() == name


def test_what_the_driver_does_not_tell_is_unknown(smi):
    smi('#!/bin/sh\necho "[N/A], [N/A], [N/A], 40, [N/A], [N/A]"\n')
    clock = clock_at(0.0, "before")
    assert (clock.sm_mhz, clock.power_w, clock.pcie_gen, clock.temp_c) == (None, None, None, 40)
    assert architecture_here() is None


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\nexit 0\n"])
def test_a_tool_that_fails_tells_nothing(smi, text):
    smi(text)
    assert clock_at(0.0, "before") is None
    assert architecture_here() is None
    assert gpu_from(DESCRIBED).driver == "CUDA 13000"


def test_this_machine(tmp_path):
    machine = machine_of(tmp_path, [], [])
    assert machine.cpu_threads == len(os.sched_getaffinity(0))
    assert machine.memory_bytes > 2**20
    assert machine.storage.filesystem != "unknown"
    assert set(machine.cpu_flags) <= set(environment.CPU_FLAGS)
    assert machine.cpu_model


def test_cpu_time_only_grows():
    before = CpuTime.now()
    sum(range(200_000))
    after = CpuTime.now()
    assert after.wall_s > before.wall_s
    assert after.busy_s >= before.busy_s
    assert after.own_s > before.own_s
    others = after.others_since(before)
    assert others.busy_cpus >= 0
