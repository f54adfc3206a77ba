"""Running programs: what they print becomes rows, and whatever they do wrong costs only the rows that are missing."""

from __future__ import annotations

import sys
import textwrap

import pytest

from moesim.errors import MicrobenchError
from moesim.microbench import process, runner
from moesim.microbench.build import Built, host_toolchain
from moesim.microbench.environment import CpuTime
from moesim.microbench.suite import bench_named

STAGE = bench_named("stage")
SIZING = runner.Options("quick", [], None, 1.0).sizing
QUICK = len(STAGE.cases("quick", SIZING))


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """A function: the body of a program that has its ``cases`` and prints by ``row(case, samples)``, to a result."""

    def run(body, budget_s=20.0, **options):
        head = f"""\
            #!{sys.executable}
            import json, os, sys, time
            cases = [dict(word.split("=") for word in line.split()) for line in sys.stdin]
            count = {str(tmp_path / "attempts")!r}
            attempt = int(open(count).read()) + 1 if os.path.exists(count) else 1
            open(count, "w").write(str(attempt))
            def row(case, samples=(10.0,) * 5, **other):
                case = {{key: int(value) if value.isdigit() else value for key, value in case.items()}}
                print(json.dumps(dict(dict(case=case, impl="x", warmup=3, batch=1, bytes=8, flops=0, cpu_share=1.0,
                      checked=True, flags=[], values={{}}, samples_us=list(samples)), **other)), flush=True)
            """
        path = tmp_path / "program"
        path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
        path.chmod(0o755)
        built = Built("host", path, "0" * 64, host_toolchain())
        monkeypatch.setattr(runner, "build", lambda *_, **__: built)
        return runner.run(runner.Options("quick", [STAGE], tmp_path, budget_s, **options))

    return run


def test_rows_have_statistics_sides_and_flags(measure):
    result = measure("""
        for index, case in enumerate(cases):
            row(case, [1.0, 2.0, 3.0] if index == 0 else [10.0] * 5, cpu_share=0.5 if index == 1 else None)
        """)
    assert (result.status, len(result.rows), result.skipped) == ("complete", QUICK, [])
    first, second = result.rows[:2]
    assert (first.time_us.p50, first.time_us.min, first.time_us.max, first.time_us.n) == (2.0, 1.0, 3.0, 3)
    assert first.flags == ["noisy"]
    assert second.flags == ["contended"]
    assert {row.split for row in result.rows} == {"fit", "holdout"}
    assert result.rows[0].derived["bytes_gbps"] == pytest.approx(8 / 2.0 * 1e-3)


def test_flagged_cases_are_measured_again_and_the_quiet_attempt_stands(measure):
    result = measure("""
        for index, case in enumerate(cases):
            quiet = index > 1 or (attempt == 2 and index == 0)
            row(case, [20.0] * 5 if quiet and attempt == 2 else [10.0] * 5 if quiet else [5.0, 10.0, 30.0])
        """)
    first, second, *others = result.rows
    assert (first.flags, first.time_us.p50, first.values["attempts"]) == ([], 20.0, 2.0)
    assert (second.flags, second.time_us.p50) == (["noisy"], 10.0)
    assert all("attempts" not in row.values for row in [second, *others])
    assert [row.case for row in result.rows] == [dict(case) for case in STAGE.cases("quick", SIZING)]


def test_a_wrong_result_is_not_measured_again(measure):
    result = measure("""
        for case in cases:
            row(case, checked=attempt > 1, flags=[] if attempt > 1 else ["wrong"])
        """)
    assert all(row.flags == ["wrong"] and not row.sound for row in result.rows)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("row(cases[0]); sys.exit('out of luck: /home/me/secret')", "the program ended with 1: secret"),
        ("row(cases[0]); os.kill(os.getpid(), 9)", "the program ended with -9: no message"),
        ("row(cases[0])", "the program ended without it"),
        ("row(cases[0]); print('{\"broken', flush=True); time.sleep(9)", "the program printed a line that is no JSON"),
        ('row(cases[0]); print(\'{"error": "no room"}\'); sys.exit(2)', "no room"),
    ],
)
def test_what_a_program_leaves_out_is_skipped_with_the_reason(measure, body, reason):
    result = measure(body)
    assert len(result.rows) == 1
    assert [(skip.bench, skip.cases, skip.reason) for skip in result.skipped] == [("stage", QUICK - 1, reason)]
    assert result.status == "complete"


def test_the_budget_ends_a_program(measure):
    result = measure("row(cases[0]); time.sleep(60)", budget_s=1.0)
    assert result.status == "partial"
    assert len(result.rows) == 1
    assert result.skipped[0].reason == "the budget was used up"


def test_a_program_that_stalls_is_given_up(measure, monkeypatch):
    monkeypatch.setattr(process, "STALL_S", 0.5)
    result = measure("row(cases[0]); time.sleep(60)")
    assert result.skipped[0].reason.startswith("no row for")


def test_skipped_cases_are_counted_by_reason(measure):
    result = measure("""
        for index, case in enumerate(cases):
            case = {key: int(value) if value.isdigit() else value for key, value in case.items()}
            print(json.dumps({"case": case, "skipped": "too small" if index else "too large"}), flush=True)
        """)
    assert {skip.reason: skip.cases for skip in result.skipped} == {"too large": 1, "too small": QUICK - 1}
    assert result.skips_told() == ["stage: 1 cases: too large", f"stage: {QUICK - 1} cases: too small"]


@pytest.mark.parametrize("other", ["samples_us=[]", "samples_us=[0.0]", "samples_us=[-1.0]", "bytes=float('nan')"])
def test_impossible_rows_are_skipped(measure, other):
    result = measure(f"for case in cases: row(case, **dict({other}))")
    assert not result.rows
    assert "impossible row" in result.skipped[0].reason


def test_others_are_waited_for_portion_by_portion(measure, monkeypatch):
    monkeypatch.setattr(runner, "QUIET_S", 0.01)
    monkeypatch.setattr(runner, "PORTION", 5)
    busy = iter([2.0, 1.0, 0.0] + [0.0] * 99)
    told = runner.environment.Others(busy_cpus=0.0, stolen_cpus=0.0)
    monkeypatch.setattr(CpuTime, "others_since", lambda *_: told.model_copy(update={"busy_cpus": next(busy)}))
    result = measure("for case in cases: row(case)", wait_s=1.0)
    assert len(result.rows) == QUICK
    assert next(busy) == 0.0
    assert result.status == "complete"


def test_an_interrupt_keeps_what_there_is(measure, monkeypatch):
    def interrupted(*args):
        yield {"case": dict(STAGE.cases("quick", SIZING)[0]), "skipped": "one"}
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "lines_of", interrupted)
    result = measure("")
    assert result.status == "partial"
    assert [skip.reason for skip in result.skipped] == ["one"]


def test_without_a_driver_the_gpus_benchmarks_are_skipped_unbuilt(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.environment, "cuda_driver_found", lambda: False)
    monkeypatch.setattr(runner, "build", lambda *_, **__: pytest.fail("nothing is to be built"))
    result = runner.run(runner.Options("quick", [bench_named("copy"), bench_named("replay")], tmp_path, 5.0))
    assert not result.rows
    assert {skip.bench for skip in result.skipped} == {"copy", "replay"}
    assert "no CUDA driver" in result.skips_told()[0]


def test_others_work_is_told_from_ours():
    before, after = CpuTime(10.0, 100.0, 1.0, 5.0), CpuTime(20.0, 118.0, 2.0, 20.0)
    others = after.others_since(before)
    assert (others.busy_cpus, others.stolen_cpus) == (0.3, 0.1)


def test_a_program_that_finds_no_gpu_says_so(tmp_path):
    path = tmp_path / "program"
    path.write_text('#!/bin/sh\necho \'{"error":"CUDA driver version is insufficient"}\'\nexit 2\n')
    path.chmod(0o755)
    with pytest.raises(MicrobenchError, match="no GPU: CUDA driver version is insufficient"):
        process.gpus_of(Built("cuda", path, "0" * 64, host_toolchain()))
