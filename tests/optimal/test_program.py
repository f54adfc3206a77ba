"""Solvers are told what they do not say by themselves; each trap has its test."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import highspy
import numpy as np
import pytest

from moesim.optimal import solvers
from moesim.optimal.answer import answer
from moesim.optimal.program import Program
from moesim.optimal.solvers import SolverError

BOTH = pytest.mark.parametrize("solver", ["HiGHS", "CBC"])


def small(constant=0.0):
    program = Program("small", "units")
    x = program.variables([-3, -2, -4], high=1, integer=True)
    program.row(zip(x, [2, 1, 3], strict=True), "<=", 4)
    program.add_constant(constant)
    return program


def hard(integer=True, items=300, rows=40):
    """A multidimensional knapsack that no solver finishes in seconds."""
    rng = np.random.default_rng(0)
    program = Program("hard", "units")
    x = program.variables(-rng.integers(10, 100, items), high=1, integer=integer)
    for _ in range(rows):
        program.row(zip(x, rng.integers(1, 100, items), strict=True), "<=", 10 * items)
    program.add_constant(1e6)
    return program


@BOTH
def test_the_objectives_constant_is_in_value_and_bound(solver):
    found = small(1000.0).solve(solver=solver)
    assert found.values.tolist() == [0, 1, 1]
    assert (found.answer.value, found.answer.bound, found.answer.status) == (994, 994, "optimal")
    program = Program("linear", "units")
    program.row(zip(program.variables([1, 2]), [1, 1], strict=True), ">=", 4)
    program.add_constant(-1000.0)
    assert program.solve(solver=solver).answer.value == pytest.approx(-996)


@BOTH
def test_after_a_time_limit_nothing_is_called_optimal(solver):
    start = time.perf_counter()
    found = hard().solve(time_limit_s=1.0, solver=solver)
    assert time.perf_counter() - start < 1.0 + solvers.LEAST_GRACE_S + 0.5
    assert found.answer.status == "feasible with gap"
    assert found.answer.bound < found.answer.value
    assert found.answer.bound > 900_000  # with the constant
    assert found.answer.gap > 0


@BOTH
def test_an_unfinished_linear_program_gives_neither_value_nor_bound(solver, monkeypatch):
    program = hard(integer=False, items=600, rows=300)
    found = program.solve(time_limit_s=0.01, solver=solver)
    assert (found.answer.value, found.answer.bound, found.values) == (None, None, None)
    assert found.answer.status == "bound only"


@BOTH
def test_the_default_gap_is_none(solver):
    """Two items that differ by a share of 1e-5, far below what HiGHS calls optimal by default."""
    program = Program("near", "units")
    x = program.variables([-1.0, -1.00001, -1.0, -0.99999], high=1, integer=True)
    program.sum_row(x, "<=", 1)
    program.add_constant(-50_000.0)
    found = program.solve(solver=solver)
    assert found.values.tolist() == [0, 1, 0, 0]
    wide = hard().solve(solver=solver, gap=0.5)
    assert wide.answer.status == "feasible with gap"


def test_highs_runs_after_somebody_changed_its_threads():
    for threads in (2, 1, 4):
        other = highspy.Highs()
        other.setOptionValue("output_flag", False)
        other.setOptionValue("threads", threads)
        other.addCol(1.0, 0.0, 1.0, 0, [], [])
        other.run()
        assert small().solve().answer.value == -6


@BOTH
def test_a_program_without_a_solution_is_told(solver):
    program = Program("none", "units")
    x = program.variables([1.0], high=1)
    program.sum_row(x, ">=", 2)
    with pytest.raises(SolverError, match=solver):
        program.solve(solver=solver)


@BOTH
def test_variables_that_nothing_uses_are_solved_with_the_rest(solver):
    program = Program("idle", "units")
    program.variables([0.0, 1.0, 0.0], low=[2.0, 1.0, 0.0], high=[2.0, 3.0, None])
    found = program.solve(solver=solver)
    assert found.answer.value == 1.0
    assert found.values[:2].tolist() == [2.0, 1.0]


def test_cbc_prints_its_bound_in_its_log_only():
    log = b"Result - Stopped on time limit\n\nObjective value:   -5.0\nLower bound:    -9.5\nGap:  0.9\n"
    assert solvers._cbc_bound(log) == -9.5
    assert solvers._cbc_bound(b"Result - Optimal solution found") is None


def test_a_solver_that_does_not_stop_is_left_behind(monkeypatch):
    """HiGHS is replaced by something that ignores every limit; the call returns all the same."""
    done = threading.Event()
    program = hard()
    original = solvers._HighsRun.finish

    def stuck(self, left_s):
        class Stuck:
            setOptionValue = staticmethod(lambda *_: None)  # noqa: N815
            run = staticmethod(lambda: done.wait(20))
            cancelSolve = staticmethod(lambda: None)  # noqa: N815

        self._highs = Stuck()
        original(self, left_s)

    monkeypatch.setattr(solvers._HighsRun, "finish", stuck)
    start = time.perf_counter()
    found = program.solve(time_limit_s=0.2)
    done.set()
    assert time.perf_counter() - start < 3
    assert found.answer.status == "bound only"


def test_a_process_that_does_not_stop_is_ended(tmp_path):
    start = time.perf_counter()
    solvers._run_process(["sleep", "60"], tmp_path / "log", 0.1)
    assert time.perf_counter() - start < 5
    with pytest.raises(SolverError, match="can't be run"):
        solvers._run_process(["/no/such/solver"], tmp_path / "log", 0.1)


@BOTH
def test_an_interrupt_leaves_no_solver_behind(solver, tmp_path):
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_program import hard
        program = hard()
        print("ready", flush=True)
        program.solve(time_limit_s=60, solver={solver!r})
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)  # to Python alone, so that nothing but our own code ends the solver
    assert process.wait(10) != 0
    process.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left in its group


def test_pulp_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small().solve().answer.status == "optimal"


def test_status_follows_from_the_numbers():
    assert answer("p", "u", value=3.0, bound=3.0, solver="s").status == "optimal"
    assert answer("p", "u", value=3.0, bound=2.0, solver="s").gap == pytest.approx(1 / 3)
    assert answer("p", "u", value=3.0, bound=None, solver="s").status == "feasible with gap"
    found = answer("p", "u", value=None, bound=2.0, solver="s")
    assert (found.status, found.gap) == ("bound only", None)
    assert answer("p", "u", value=3.0, bound=1.0, solver="s").tightened(3.0, "t").status == "optimal"
    assert answer("p", "u", value=3.0, bound=2.0, solver="s").tightened(1.0, "t").bound == 2.0
