"""``moesim microbench`` and ``moesim validate card`` as a user meets them."""

from __future__ import annotations

import json

import pytest
from microbench_builders import result_of, rows_of

from moesim.microbench import runner
from moesim.microbench.suite import BENCHES

COPY = {"latency": 5e-6, "per_segment": 3e-6, "bandwidth": 55e9, "ramp": 4e-6, "knee": 2e5}
NVBANDWIDTH = {"nvbandwidth": {"testcases": [{"name": "host_to_device_memcpy_ce", "bandwidth_matrix": [["55.6"]]}]}}


@pytest.fixture
def result(moesim):
    """A saved result of a machine that obeys the form of copies."""
    return moesim.write("mine.json", result_of(rows_of("copy", COPY, noise=0.01)).to_json())


def test_list_names_every_benchmark(moesim):
    code, out, _ = moesim("microbench", "list", "--json")
    assert code == 0
    listed = json.loads(out)
    assert [row["benchmark"] for row in listed] == [bench.name for bench in BENCHES]
    assert all(row["fitted"] + row["held out"] > 0 for row in listed)
    assert "an urgent expert behind queued prefetches" in moesim("microbench", "list", "--full")[1]


def test_fit_then_validate(moesim, result):
    code, out, err = moesim("microbench", "fit", result, "-o", "mine.yaml")
    assert (code, out) == (0, "wrote mine.yaml\n"), err
    assert err.startswith("fitted 22 rows, 0 more were flagged\n")
    code, out, err = moesim("validate", "card", "mine.yaml", result)
    assert code == 0
    assert "## Held out: never seen by the fit" in out
    assert "5 %: reached" in out
    assert "wrote reports/validation/mine/validation.md" in err
    assert (moesim.folder / "reports/validation/mine/validation.md").read_text() == out
    saved = json.loads((moesim.folder / "reports/validation/mine/validation.json").read_text())
    assert json.loads(moesim("validate", "card", "mine.yaml", result, "--json")[1]) == saved
    assert "## Fitted" not in moesim("validate", "card", "mine.yaml", result, "--held-out-only", "--out", "there")[1]
    assert (moesim.folder / "there/validation.json").is_file()


def test_show_and_compare(moesim, result):
    code, out, _ = moesim("microbench", "show", result, "--only", "copy")
    assert code == 0
    assert out.startswith("Test CPU, 8 CPUs")
    assert "dir=h2d bytes=9437184 segments=1" in out
    assert len(json.loads(moesim("microbench", "show", result, "--json")[1])) == len(rows_of("copy", COPY))
    code, out, _ = moesim("microbench", "compare", result, result)
    assert code == 0
    assert out.count("not distinguishable") == len(rows_of("copy", COPY))


def test_import_nvbandwidth(moesim):
    file = moesim.write("out.json", json.dumps(NVBANDWIDTH))
    code, out, _ = moesim("microbench", "import-nvbandwidth", file)
    assert code == 0
    assert "kind published" in out
    reading = {"test": "host_to_device_memcpy_ce", "row": 0, "column": 0, "value": 55.6, "unit": "GB/s"}
    assert json.loads(moesim("microbench", "import-nvbandwidth", file, "--json")[1]) == [
        {**reading, "kind": "published"}
    ]


def test_run_tells_what_it_measured_and_what_not(moesim, monkeypatch):
    def ran(options, note):
        note("working")
        found = result_of([row.model_copy(update={"flags": ["noisy"]}) for row in rows_of("copy", COPY)])
        skipped = [runner.Skipped(bench=name, reason="no GPU", cases=2) for name in ("hbm", "d2d")]
        return found.model_copy(update={"skipped": skipped})

    monkeypatch.setattr(runner, "run", ran)
    code, out, err = moesim("microbench", "run", "--quick", "--out", "a/b.json")
    assert (code, out) == (0, "wrote a/b.json\n")
    assert f"{len(rows_of('copy', COPY))} rows ({len(rows_of('copy', COPY))} noisy), complete" in err
    assert "skipped hbm, d2d: 4 cases: no GPU" in err
    assert moesim("microbench", "show", "a/b.json")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "--only", "copi,drum"), "unknown benchmark 'copi'"),
        (("run", "--only", "copi,drum"), "unknown benchmark 'drum'"),
        (("run", "--budget", "soon"), "--budget: must be a time above nothing (got 'soon')"),
        (("run", "--budget", "0s"), "--budget"),
        (("run", "--file-size", "1 KiB"), "is too small"),
        (("run", "--file-size", "much"), "--file-size"),
        (("build", "--arch", "90;rm"), "must be compute capabilities"),
        (("build", "--program", "gpu"), "unknown program 'gpu'"),
        (("fit", "none.json", "-o", "x.yaml"), "none.json"),
        (("fit", "trace.npz", "-o", "x.yaml"), "trace.npz"),
        (("fit", "cut.json", "-o", "x.yaml"), "not valid JSON"),
        (("show", "scenario.yaml"), "not valid JSON"),
        (("compare", "mine.json", "other.json"), "have no case in common"),
        (("import-nvbandwidth", "scenario.yaml"), "holds no bandwidth of nvbandwidth"),
    ],
)
def test_bad_input(moesim, result, arguments, told):
    moesim.write("cut.json", (moesim.folder / "mine.json").read_text()[:200])
    moesim.write("other.json", result_of(rows_of("alloc", {"latency": 1e-6, "bandwidth": 1e9})).to_json())
    assert told in moesim.refused("microbench", *arguments)


def test_a_card_that_is_none_is_refused(moesim, result):
    assert "unknown name 'nobodys-machine'" in moesim.refused("validate", "card", "nobodys-machine", result)
    moesim.write("wrong.yaml", "name: wrong\ntitle: x\n")
    assert "wrong.yaml" in moesim.refused("validate", "card", "wrong.yaml", result)
