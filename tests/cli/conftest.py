"""The command line as a user meets it: arguments in; exit code, streams and files out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders import trace_of

from moesim.cli import main
from moesim.traces import save_trace

SCENARIO = """\
model: mixtral-8x7b
trace: {file: trace.npz, stand_in: true}
hardware: desktop-rtx3060-ddr4-32g-nvme3
policies:
  caching: lru
memory:
  gpu_experts: 4 GiB
  host_experts: 20 GiB
workload: {requests: 2}
"""


@dataclass(frozen=True)
class Shell:
    """A folder with a trace and a scenario, and what a command did in it."""

    folder: Path
    streams: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of ``moesim ARGUMENTS``."""
        self.patch.setattr(sys, "argv", ["moesim", *arguments])
        self.streams.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *self.streams.readouterr())

    def refused(self, *arguments: str) -> str:
        """What a command says when it refuses its input, as every command must."""
        before = self.files()
        code, out, err = self(*arguments)
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        assert "bug in moesim" not in err
        assert self.files() == before
        return err

    def write(self, name: str, content: str | bytes) -> str:
        """Put a file into the folder."""
        data = content.encode() if isinstance(content, str) else content
        (self.folder / name).write_bytes(data)
        return name

    def files(self) -> set[str]:
        """Everything that is in the folder."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
def moesim(tmp_path, capsys, monkeypatch) -> Shell:
    """``moesim`` in a folder that holds ``scenario.yaml`` and ``trace.npz``."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    rows = [[rng.permutation(8)[:2] for _ in range(2)] for _ in range(24)]
    trace = trace_of(rows, num_experts=8, prompt=3, requests=np.repeat([0, 1, 2], 8))
    save_trace(trace, tmp_path / "trace.npz")
    shell = Shell(tmp_path, capsys, monkeypatch)
    shell.write("scenario.yaml", SCENARIO)
    return shell
