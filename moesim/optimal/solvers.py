"""Runs of the two solvers on a PuLP model, with what each of them leaves unsaid.

See ``program`` for what is settled here and why.
"""

from __future__ import annotations

import atexit
import math
import re
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highspy
import pulp
from pulp.apis.coin_api import PULP_CBC_CMD

from moesim.errors import MoesimError
from moesim.optimal.answer import Stopwatch

#: A solver is told to stop so long before its time is over (of short times, a fifth), to leave what it has found ...
GRACE_S = 2.0
#: ... for which it has at least so long.
LEAST_GRACE_S = 1.0
#: How long this process waits at its end for a HiGHS that was left behind: one that still runs would abort it.
LAST_GRACE_S = 10.0
_POLL_S = 0.05
_CBC_LOWER_BOUND = re.compile(rb"^Lower bound:\s*(\S+)", re.MULTILINE)


_left_behind: list[threading.Thread] = []


@atexit.register
def _wait_for_those_left_behind() -> None:
    """They have been told to stop."""
    for thread in _left_behind:
        thread.join(LAST_GRACE_S)


class SolverError(MoesimError):
    """A program without a solution, or a solver that could not be run."""


@dataclass(frozen=True)
class Outcome:
    """What a solver left: both numbers without the objective's constant.

    Attributes:
        values: of the best solution, by variable; None: none was found.
        bound: proven; None: nothing is, or it is the value itself.
        is_proven: the solver finished and proved its solution the best.
    """

    values: list[float] | None
    bound: float | None
    is_proven: bool


def _told_s(left_s: float) -> float:
    """The time limit that a solver is told when so much is left."""
    return max(0.01, left_s - min(GRACE_S, left_s / 5))


def _most_s(left_s: float | None) -> float:
    """When a solver is ended or left behind; both limits are what the caller's says, but for the last second."""
    return math.inf if left_s is None else max(left_s, _told_s(left_s) + LEAST_GRACE_S)


def run_highs(model: Any, is_integer: bool, clock: Stopwatch, gap: float) -> Outcome:
    """HiGHS, in this process and in a thread of its own, so that it can be told to stop.

    Raises:
        SolverError: there is no solution, or HiGHS failed twice.
    """
    for _ in range(2):
        # Its scheduler keeps the number of threads that anybody in this process last asked for.
        highspy.Highs.resetGlobalScheduler(True)
        run = _HighsRun(model, gap)
        run.finish(clock.left_s)
        if run.was_abandoned or run.status != highspy.HighsModelStatus.kNotset:
            return run.outcome(is_integer)
    raise SolverError.of("HiGHS", "did not run", "close other users of HiGHS in this process")


class _HighsRun(pulp.HiGHS):  # type: ignore[misc]  # PuLP has no types
    """PuLP's translation of a model for HiGHS, and a run that can be stopped."""

    def __init__(self, model: Any, gap: float):
        super().__init__(msg=False, threads=1, gapRel=gap, gapAbs=0.0)
        self.createAndConfigureSolver(model)
        self.buildSolverModel(model)
        self._columns = [variable.index for variable in model.variables()]
        self._highs = model.solverModel
        self._best: list[float] | None = None
        self._best_bound = -math.inf
        self.was_abandoned = False
        self._highs.HandleUserInterrupt = True
        self._highs.cbMipImprovingSolution.subscribe(self._keep)

    def _keep(self, event: Any) -> None:
        """An integer solution was found: keep it, for the case that HiGHS never comes back."""
        self._best = list(event.data_out.mip_solution)
        self._best_bound = float(event.data_out.mip_dual_bound)

    def finish(self, left_s: float | None) -> None:
        """Run until HiGHS is done, or its time is over."""
        if left_s is not None:
            self._highs.setOptionValue("time_limit", _told_s(left_s))
        thread = threading.Thread(target=self._highs.run, daemon=True)
        thread.start()
        wait_s = _most_s(left_s)
        try:
            while thread.is_alive() and wait_s > 0:
                thread.join(_POLL_S)
                wait_s -= _POLL_S
        finally:
            if thread.is_alive():
                self._highs.cancelSolve()
                thread.join(LEAST_GRACE_S)
            if thread.is_alive():
                self.was_abandoned = True
                _left_behind.append(thread)

    @property
    def status(self) -> Any:
        """The model status by HiGHS itself."""
        return self._highs.getModelStatus()

    def outcome(self, is_integer: bool) -> Outcome:
        """What was found.

        Raises:
            SolverError: there is no solution.
        """
        if self.was_abandoned:
            return Outcome(self._best, self._best_bound if math.isfinite(self._best_bound) else None, False)
        kinds = highspy.HighsModelStatus
        if self.status in (kinds.kInfeasible, kinds.kUnbounded, kinds.kUnboundedOrInfeasible):
            raise SolverError.of("HiGHS", f"the program is {self._highs.modelStatusToString(self.status).lower()}")
        info, is_done = self._highs.getInfo(), self.status in (kinds.kOptimal, kinds.kModelEmpty)
        if not is_integer and not is_done:
            return Outcome(None, None, False)
        has_solution = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible) or is_done
        values = list(self._highs.getSolution().col_value) if has_solution else None
        bound = float(info.mip_dual_bound) if is_integer and math.isfinite(info.mip_dual_bound) else None
        return Outcome(values, bound, is_done and not is_integer)


def run_cbc(model: Any, is_integer: bool, clock: Stopwatch, gap: float) -> Outcome:
    """CBC, as a process that is gone when this returns or is interrupted.

    Raises:
        SolverError: there is no solution, or no CBC for this machine.
    """
    with tempfile.TemporaryDirectory(prefix="moesim-cbc-") as folder:
        mps, solution, log = (Path(folder) / name for name in ("model.mps", "solution.txt", "log.txt"))
        written, variable_names, row_names, _ = model.writeMPS(str(mps), rename=1)
        command = [str(PULP_CBC_CMD.pulp_cbc_path), str(mps)]
        left_s = clock.left_s
        if left_s is not None:
            command += ["-sec", f"{_told_s(left_s):.3f}"]
        command += ["-ratio", repr(gap), "-timeMode", "elapsed", "-solve" if is_integer else "-initialSolve"]
        command += ["-printingOptions", "all", "-solution", str(solution)]
        told = _run_process(command, log, _most_s(left_s))
        if not solution.exists():
            return Outcome(None, _cbc_bound(told), False)
        reader = pulp.COIN_CMD(msg=False)
        _, by_name, *_, status = reader.readsol_MPS(str(solution), model, written, variable_names, row_names)
        if status in (pulp.LpSolutionInfeasible, pulp.LpSolutionUnbounded):
            raise SolverError.of("CBC", "the program is infeasible or unbounded")
        is_done = status == pulp.LpSolutionOptimal
        if status == pulp.LpSolutionNoSolutionFound or not (is_integer or is_done):
            return Outcome(None, _cbc_bound(told) if is_integer else None, False)
        values = [by_name[variable.name] for variable in model.variables()]
        return Outcome(values, _cbc_bound(told), is_done and gap == 0.0)


def _run_process(command: list[str], log: Path, most_s: float) -> bytes:
    """What a process writes, ended when its time is over, and in any case when this returns."""
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
        except OSError as error:
            told = f"can't be run: {error.strerror}"
            raise SolverError.of(command[0], told, "HiGHS needs no program beside Python") from None
        try:
            process.wait(None if math.isinf(most_s) else most_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
    return log.read_bytes()


def _cbc_bound(log: bytes) -> float | None:
    """The bound that CBC printed; where it prints none it has proven its value, or nothing."""
    found = _CBC_LOWER_BOUND.findall(log)
    return float(found[-1]) if found else None
