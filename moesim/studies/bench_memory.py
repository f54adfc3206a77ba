"""How much memory a process has held."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process held. Linux's ru_maxrss would include the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
