"""HybriMoE's schedule of a layer over GPU, CPU and link, as its on-miss and its prefetch policy use it.

Missing experts are ranked by tokens, most first. The first of them are copied to the GPU one after the other and
computed there as they arrive, after those that are there; the others run on the CPU.
"""

from __future__ import annotations

from typing import Any


def makespan(by_rank: Any, moved: int, missing: int, fetch_s: Any, cpu_s: Any, gpu_s: Any, resident_s: float) -> float:
    """Seconds until CPU and GPU are done.

    Args:
        by_rank: the place of the missing expert of each rank, in the columns that follow. [missing]
        moved: so many of them are copied.
        resident_s: the GPU's seconds for experts that are there.
    """
    on_cpu_s = link_s = 0.0
    on_gpu_s = resident_s
    for rank in range(missing):
        place = by_rank[rank]
        if rank < moved:
            link_s += fetch_s[place]
            on_gpu_s = max(on_gpu_s, link_s) + gpu_s[place]
        else:
            on_cpu_s += cpu_s[place]
    return max(on_cpu_s, on_gpu_s)


def best_moved(by_rank: Any, missing: int, fetch_s: Any, cpu_s: Any, gpu_s: Any, resident_s: float) -> int:
    """How many are to be copied for the least makespan; of equals the fewest."""
    best, shortest = 0, makespan(by_rank, 0, missing, fetch_s, cpu_s, gpu_s, resident_s)
    for moved in range(1, missing + 1):
        seconds = makespan(by_rank, moved, missing, fetch_s, cpu_s, gpu_s, resident_s)
        if seconds < shortest:
            best, shortest = moved, seconds
    return best
