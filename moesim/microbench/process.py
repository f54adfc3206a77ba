"""One benchmark as a process: its cases on standard input, its lines read as they come.

A program that dies, stalls or runs out of time costs only the rows that it had not yet printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moesim.errors import MicrobenchError
from moesim.microbench import environment
from moesim.microbench.build import Built
from moesim.microbench.suite.bench import Case, case_line

#: A process that prints nothing for so long is given up.
STALL_S = 180.0
#: Why a program was ended that had used up its time.
OUT_OF_TIME = "the budget was used up"

Line = dict[str, Any]


def lines_of(
    program: Built, words: Sequence[str], cases: Sequence[Case], directory: Path, left_s: float
) -> Iterator[Line | str]:
    """What a program prints, line by line; last, where it did not end by itself or failed, why.

    Args:
        words: its arguments.
        directory: where it runs, and may make its test file.
        left_s: seconds after which it is ended.
    """
    process = _started(program, words, directory)
    printed: queue.Queue[str | None] = queue.Queue()
    forwarding = threading.Thread(target=_forward, args=(process, cases, printed), daemon=True)
    forwarding.start()
    deadline = time.monotonic() + left_s
    try:
        while True:
            wait_s = min(STALL_S, deadline - time.monotonic())
            try:
                text = printed.get(timeout=max(0.01, wait_s))
            except queue.Empty:
                yield OUT_OF_TIME if wait_s < STALL_S else f"no row for {STALL_S:.0f} s"
                return
            if text is None:
                break
            if text.startswith("{"):
                yield _parsed(text)
        if (code := process.wait(30)) not in (0, 2):
            yield f"the program ended with {code}: {_last_line(process)}"
    finally:
        _end(process, directory)
        forwarding.join(5)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()


def gpus_of(program: Built) -> list[Line]:
    """The GPUs that the CUDA program finds, as it describes them.

    Raises:
        MicrobenchError: none, or no driver.
    """
    done = subprocess.run([program.path, "info"], capture_output=True, text=True, timeout=120, check=False)
    lines = [_parsed(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = lines[-1] if lines else {"error": f"the program ended with {done.returncode}"}
    if "error" in found:
        raise MicrobenchError.of("no GPU", found["error"])
    return list(found["gpus"])


def _started(program: Built, words: Sequence[str], directory: Path) -> subprocess.Popen[str]:
    cublas = environment.cublas_library() if program.program == "cuda" else None
    return subprocess.Popen(
        [str(program.path), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=directory,
        env={**({"MOESIM_CUBLAS": cublas} if cublas else {}), **os.environ},
    )


def _parsed(text: str) -> Line:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError):
        return {"error": "the program printed a line that is no JSON"}


def _forward(process: subprocess.Popen[str], cases: Sequence[Case], printed: queue.Queue[str | None]) -> None:
    """Feeds a program its cases and passes on what it prints; None at the end."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("".join(case_line(case) + "\n" for case in cases))
        process.stdin.close()
    for line in process.stdout:
        printed.put(line)
    printed.put(None)


def _end(process: subprocess.Popen[str], directory: Path) -> None:
    """A program that still runs is ended, and what it may have left is removed."""
    if process.poll() is None:
        process.kill()
        process.wait(30)
    (directory / f"moesim-bench-{process.pid}.bin").unlink(missing_ok=True)


def _last_line(process: subprocess.Popen[str]) -> str:
    """What a program said last on stderr, without folders."""
    assert process.stderr is not None
    lines = process.stderr.read().strip().splitlines()
    return os.path.basename(lines[-1])[:200] if lines else "no message"
