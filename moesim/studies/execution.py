"""Where many runs run: processes of this machine, or Ray for many machines.

An executor takes a function and items, and yields what became of each as it ends, in whatever order. An item whose
process dies is tried once more on its own; if that dies as well it is :class:`Lost`, and the others go on.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from moesim.errors import ScenarioError

Item = TypeVar("Item")
Value = TypeVar("Value")
EXECUTORS = ("processes", "ray")
_ORPHAN_POLL_S = 1.0
_RAY_RETRIES = 3


@dataclass(frozen=True)
class Lost:
    """An item without a value: its process died, or the function raised what it should not."""

    why: str


class Executor(Protocol):
    """Runs a function on many items."""

    def outcomes(self, function: Callable[[Item], Value], items: Sequence[Item]) -> Iterator[tuple[int, Value | Lost]]:
        """(index of the item, its value), as they end."""
        ...


def executor_of(name: str, processes: int | None = None, address: str | None = None) -> Executor:
    """The executor of that name.

    Args:
        processes: at once; default: one for each core.
        address: of a running Ray cluster; default: one of this machine's own, for this run.

    Raises:
        ScenarioError: Ray is not installed.
    """
    return OnRay(processes, address) if name == "ray" else Processes(processes)


class Processes:
    """A pool of processes on this machine. It is kept from call to call: what a process has loaded, it has."""

    def __init__(self, count: int | None = None):
        self._count = count or os.cpu_count() or 1
        self._kept: ProcessPoolExecutor | None = None

    def outcomes(self, function: Callable[[Item], Value], items: Sequence[Item]) -> Iterator[tuple[int, Value | Lost]]:
        """See :class:`Executor`."""
        waiting, suspects = deque(range(len(items))), deque[int]()
        while waiting or suspects:
            alone = bool(suspects)
            broken = yield from self._until_broken(function, items, suspects if alone else waiting, alone)
            if alone:
                yield from ((index, Lost("its process was killed, twice")) for index in broken)
            else:
                suspects.extend(broken)

    def _until_broken(
        self, function: Callable[[Item], Value], items: Sequence[Item], queue: deque[int], alone: bool
    ) -> Any:
        """All items of a queue, or until a process dies: returns the items that were running then."""
        most = 1 if alone else self._count
        running: dict[Future[Value], int] = {}
        try:
            pool = self._pool()
            while queue or running:
                while queue and len(running) < most:
                    running[pool.submit(function, items[queue[0]])] = queue[0]
                    queue.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        raise error
                    index = running.pop(future)
                    yield index, Lost(f"{type(error).__name__}: {error}") if error else future.result()
        except BrokenProcessPool:
            self._drop()
            return sorted(running.values())
        except BaseException:
            self._drop()
            raise
        return []

    def _pool(self) -> ProcessPoolExecutor:
        if self._kept is None:
            self._kept = ProcessPoolExecutor(self._count, initializer=_end_with_parent, initargs=(os.getpid(),))
            # One that is only forgotten may close its pipe while the interpreter, at its end, still writes to it.
            weakref.finalize(self, self._kept.shutdown)
        return self._kept

    def _drop(self) -> None:
        """Let go of the pool: a broken one, or one whose work nobody wants any more."""
        if self._kept is not None:
            self._kept.shutdown(wait=False, cancel_futures=True)
            self._kept = None


def _end_with_parent(parent: int) -> None:
    """A worker whose parent was killed ends as well, instead of waiting for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class OnRay:
    """Tasks on a Ray cluster; all of its nodes must see the scenario's folder and the store under the same paths."""

    def __init__(self, count: int | None = None, address: str | None = None):
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            raise ScenarioError.of("--executor ray", "Ray is not installed", "pip install 'moesim[ray]'") from None
        self._count, self._address = count, address

    def outcomes(self, function: Callable[[Item], Value], items: Sequence[Item]) -> Iterator[tuple[int, Value | Lost]]:
        """See :class:`Executor`. A task whose node dies runs again on another one."""
        ray = self._ray
        own = not ray.is_initialized()
        if own:
            cores = {} if self._address else {"num_cpus": self._count or os.cpu_count() or 1}
            ray.init(self._address, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **cores)
        try:
            remote = ray.remote(max_retries=_RAY_RETRIES)(function)
            running = {remote.remote(item): index for index, item in enumerate(items)}
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                index = running.pop(done)
                try:
                    yield index, ray.get(done)
                except ray.exceptions.RayError as error:
                    yield index, Lost(str(error).strip().splitlines()[-1])
        finally:
            if own:
                ray.shutdown()
