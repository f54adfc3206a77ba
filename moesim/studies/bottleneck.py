"""What would help most: the same run again with one thing changed, one change after the other.

A share of time says what limits a run, not what removing it would buy: behind one limit stands the next. So each
change is simulated.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.costs.roofline import OpTime
from moesim.costs.transfer import host_copy
from moesim.engine import figures_of
from moesim.hardware import load_link
from moesim.policies import api
from moesim.results import Result
from moesim.results.result import Bottleneck, WhatIf
from moesim.scenario.run import Run
from moesim.scenario.streams import random_stream
from moesim.scenario.time_use import limit_shares
from moesim.setup import Setup
from moesim.traces.trace import DECODE

#: A change is tried where what it relieves takes so much of the time; below, it could not buy 1.1x (Amdahl's law).
WORTH_TRYING = 0.09
_NEXT_LINK = {"pcie-3.0-x16": "pcie-4.0-x16", "pcie-4.0-x16": "pcie-5.0-x16"}


@dataclass(frozen=True)
class Change:
    """A changed setup, the limits that it is meant to relieve, and what it means."""

    name: str
    meaning: str
    relieves: tuple[str, ...]
    setup: Setup


def with_what_ifs(run: Run, progress: Callable[[str], None] = lambda _: None) -> Result:
    """The run's Result with every change that could help simulated, most helpful first.

    Args:
        progress: called with the name of each change when it has been simulated.
    """
    result, setup = run.result, run.built.setup
    shares = limit_shares(result.breakdown.total)
    changes = [
        change for change in _changes(run) if sum(shares.get(limit, 0.0) for limit in change.relieves) >= WORTH_TRYING
    ]
    what_ifs = []
    with _workers(len(changes)) as pool:
        for change, step_s in zip(changes, pool.map(step_seconds, (change.setup for change in changes)), strict=True):
            progress(change.name)
            what_ifs.append(_what_if(change, result, setup, step_s))
    what_ifs.sort(key=lambda what_if: (-what_if.speedup, what_if.change))
    found = result.bottleneck
    return result.model_copy(
        update={"bottleneck": Bottleneck(bound_by=found.bound_by, share=found.share, what_if=what_ifs)}
    )


def step_seconds(setup: Setup) -> NDArray[np.float64]:
    """How long each step of a setup takes. [steps]"""
    outcome = figures_of(setup)
    return outcome.step_end_s - outcome.step_start_s


def _workers(tasks: int) -> Executor:
    """One process for each core, started by forking, which is quick; a thread where that can't be had."""
    cores = min(tasks, os.cpu_count() or 1)
    if cores < 2 or "fork" not in multiprocessing.get_all_start_methods() or threading.active_count() > 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork"))


def _what_if(change: Change, result: Result, setup: Setup, step_s: NDArray[np.float64]) -> WhatIf:
    counted = np.arange(len(step_s)) >= setup.warmup_steps
    decode = (setup.visits.steps.phase == DECODE) & counted
    tokens_per_s = result.counters.output_tokens / float(step_s[counted].sum())
    decode_per_s = result.counters.decode_tokens / float(step_s[decode].sum()) if decode.any() else None
    ours = result.headline.decode_tokens_per_s
    return WhatIf(
        change=change.name,
        meaning=change.meaning,
        decode_tokens_per_s=decode_per_s,
        output_tokens_per_s=tokens_per_s,
        speedup=tokens_per_s / result.headline.output_tokens_per_s,
        decode_speedup=decode_per_s / ours if decode_per_s and ours else None,
    )


def _changes(run: Run) -> Iterator[Change]:
    """Every change that is possible on this machine."""
    setup, node, ways = run.built.setup, run.built.parts.node, run.built.parts.ways
    times, all_experts = setup.times, int(setup.sizes.sum())
    links = ("PCIe", "flash", "CPU")
    if setup.gpu.capacity_bytes < all_experts:
        parts = setup.gpu.layer_bytes and tuple(2 * part for part in setup.gpu.layer_bytes)
        capacity = min(2 * setup.gpu.capacity_bytes, all_experts)
        doubled = replace(setup.gpu, capacity_bytes=capacity, layer_bytes=parts)
        meaning = "GPU memory for experts doubled, at most to all of them"
        yield Change("twice the GPU cache", meaning, links, replace(setup, gpu=doubled))
    if (faster := _NEXT_LINK.get(node.link.name)) is not None and not setup.unified:
        link = load_link(faster)
        copy_s = host_copy(setup.sizes, link, node.cpu, ways.host).seconds
        faster_link = replace(times, copy_s=copy_s)
        yield Change(link.title, "the host link replaced", ("PCIe",), replace(setup, times=faster_link))
    if setup.host is not None or setup.unified:
        meaning = "the drive reads twice as fast"
        faster_drive = replace(times, read_s=times.read_s / 2)
        yield Change("twice the flash speed", meaning, ("flash",), replace(setup, times=faster_drive))
    if setup.host is not None:
        meaning = "host memory holds every expert; flash is not read"
        yield Change("all experts in host memory", meaning, ("flash",), replace(setup, host=None))
    faster_gpu = replace(
        times,
        before=_faster_memory(times.before),
        shared=_faster_memory(times.shared),
        expert=_faster_memory(times.expert),
        after=_faster_memory(times.after),
    )
    meaning = "GPU memory twice as fast, arithmetic and launches unchanged"
    limits = ("GPU memory bandwidth",)
    yield Change("twice the GPU memory bandwidth", meaning, limits, replace(setup, times=faster_gpu))
    yield from _better_policies(run)


def _better_policies(run: Run) -> Iterator[Change]:
    """What perfect decisions would buy on the same machine."""
    setup, built = run.built.setup, run.built
    waits = ("PCIe", "flash", "CPU")
    if not setup.gpu.policy.needs_future:
        belady = replace(setup.gpu, policy=api.load("caching", "belady"))
        yield Change("perfect caching (Belady)", "fewest fetches; knows the future", waits, replace(setup, gpu=belady))
    if not built.parts.policies["prefetch"].needs_future:
        oracle = api.load("prefetch", "oracle", {"horizon": 1})
        rng = random_stream(built.file.scenario.seed, "prefetch")
        candidates = oracle.module.candidates(oracle.params, setup.visits, built.trace, rng)
        yield Change(
            "perfect prefetch, one layer ahead",
            "each layer's experts known one layer before; knows the future",
            waits,
            replace(setup, candidates=candidates),
        )


def _faster_memory(op: OpTime) -> OpTime:
    return OpTime(op.compute_s, op.memory_s / 2, op.launch_s)
