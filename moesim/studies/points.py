"""Many runs of one arrow: a base scenario with settings, each run once, kept in a store, its failures too."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from moesim.errors import Fault, MoesimError
from moesim.results.saved import SavedResult
from moesim.scenario import load_scenario
from moesim.scenario.run import result_of
from moesim.studies.execution import Executor, Lost
from moesim.studies.store import Failure, ResultStore, key_of

Status = Literal["ran", "found", "failed", "busy"]


@dataclass(frozen=True)
class Task:
    """A base scenario, and the settings that make a point of it.

    Attributes:
        name: for progress and errors.
        wait: for another process that runs the same point; else come back later.
        retry: run again what has failed before.
        allow_code: run policies that the scenario names as files.
    """

    base: Path
    settings: tuple[tuple[str, Any], ...]
    store: Path
    name: str = ""
    wait: bool = False
    retry: bool = False
    allow_code: bool = False


@dataclass(frozen=True)
class Ending:
    """What became of a task: the key under which the store has its result or failure ("" where it has no key)."""

    status: Status
    key: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Progress:
    """How far many runs are. ``remaining_s``: of the wall clock, from the pace of those that ran; None: unknown."""

    done: int
    total: int
    ran: int
    found: int
    failed: int
    remaining_s: float | None
    name: str


def run_task(task: Task) -> Ending:
    """Take a task's result from the store, or run it and keep what comes out."""
    overrides = overrides_of(task.settings)
    try:
        file = load_scenario(task.base, overrides, code="run" if task.allow_code else "refuse")
        key = key_of(file)
    except MoesimError as error:
        return Ending("failed", "", failure_of(error))
    store = ResultStore(task.store)
    if (ending := _known(store, key, task.retry)) is not None:
        return ending
    with store.claim(key, wait=task.wait) as mine:
        if not mine:
            return Ending("busy", key)
        if (ending := _known(store, key, task.retry)) is not None:
            return ending
        try:
            store.put(key, result_of(file))
        except MoesimError as error:
            failure = failure_of(error)
        except Exception as error:  # a bug that one point shows must not stop the others
            failure = crash(f"{type(error).__name__}: {error}")
        else:
            return Ending("ran", key)
        store.put_failure(key, failure)
    return Ending("failed", key, failure)


def overrides_of(settings: Iterable[tuple[str, Any]]) -> list[str]:
    """Settings as a scenario takes them: JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in settings]


def run_all(
    tasks: Sequence[Task], executor: Executor, progress: Callable[[Progress], None] = lambda _: None
) -> list[Ending]:
    """Every task's ending, in their order. What other processes are running is waited for last."""
    endings: dict[int, Ending] = {}
    tell = _Teller(len(tasks), progress)
    busy = []
    for index, outcome in executor.outcomes(run_task, tasks):
        ending = Ending("failed", "", crash(outcome.why)) if isinstance(outcome, Lost) else outcome
        if ending.status == "busy":
            busy.append(index)
        else:
            endings[index] = ending
            tell(ending, tasks[index].name)
    again = [replace(tasks[index], wait=True) for index in busy]
    for index, outcome in executor.outcomes(run_task, again):
        ending = Ending("failed", "", crash(outcome.why)) if isinstance(outcome, Lost) else outcome
        endings[busy[index]] = ending
        tell(ending, again[index].name)
    return [endings[index] for index in range(len(tasks))]


def results_of(tasks: Sequence[Task], endings: Sequence[Ending]) -> Iterator[SavedResult | Failure]:
    """The result of each task, or why there is none."""
    for task, ending in zip(tasks, endings, strict=True):
        found = ResultStore(task.store).get(ending.key) if ending.status != "failed" else ending.failure
        yield found or crash("its result is gone from the store")


def failure_of(error: MoesimError) -> Failure:
    """A failure from wrong input."""
    return Failure(cause="input", faults=[(fault.place, fault.message, fault.hint) for fault in error.faults])


def crash(why: str) -> Failure:
    """A failure that is no fault of the input."""
    return Failure(cause="crash", faults=[("", why, "run it alone with `moesim --debug run`")])


def faults_of(failure: Failure) -> list[Fault]:
    """As an error carries them."""
    return [Fault(*fault) for fault in failure.faults]


def _known(store: ResultStore, key: str, retry: bool) -> Ending | None:
    if store.get(key) is not None:
        return Ending("found", key)
    failure = None if retry else store.failure(key)
    return None if failure is None else Ending("failed", key, failure)


class _Teller:
    """Counts endings and guesses when the last one comes."""

    def __init__(self, total: int, progress: Callable[[Progress], None]):
        self._total, self._progress, self._started = total, progress, time.monotonic()
        self._counts = dict.fromkeys(("ran", "found", "failed", "busy"), 0)

    def __call__(self, ending: Ending, name: str) -> None:
        self._counts[ending.status] += 1
        done, found = sum(self._counts.values()), self._counts["found"]
        worked, left = done - found, self._total - done
        pace = (time.monotonic() - self._started) / worked if worked else None
        remaining = 0.0 if not left else pace * left if pace is not None else None
        counts = self._counts
        self._progress(Progress(done, self._total, counts["ran"], found, counts["failed"], remaining, name))
