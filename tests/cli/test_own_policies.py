"""Policies from outside: a user's file, which runs only if allowed, and entry points of other packages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moesim.engine import Outcome, quickest
from moesim.errors import CompileError, PolicyError
from moesim.policies import api, plug_ins
from moesim.replay import count, counts

EXAMPLE = Path(__file__).parents[2] / "scenarios" / "own-policy" / "second_chance.py"
MARKER = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('')\n"
OWN = "policies.caching=./mine.py"


def test_check_reads_a_policy_file_and_never_runs_it(moesim):
    moesim.write("mine.py", EXAMPLE.read_text() + MARKER)
    code, out, _ = moesim("check", "scenario.yaml", "--set", OWN)
    assert code == 0
    assert "./mine.py: a policy file; its text was read, its code was not run" in out
    assert not (moesim.folder / "ran").exists()


def test_run_refuses_a_policy_file_until_it_is_allowed(moesim):
    moesim.write("mine.py", EXAMPLE.read_text() + MARKER)
    told = moesim.refused("run", "scenario.yaml", "--set", OWN)
    assert "--allow-code" in told
    assert not (moesim.folder / "ran").exists()
    code, out, _ = moesim("run", "scenario.yaml", "--set", OWN, "--allow-code", "--no-report", "--json")
    assert code == 0
    found = json.loads(out)["policies"]["caching"]
    assert found == {"name": "./mine.py", "sha256": plug_ins.digest_of_file(moesim.folder / "mine.py")}
    assert (moesim.folder / "ran").exists()


def test_compare_runs_policy_files_in_its_processes_and_tells_their_texts_apart(moesim):
    moesim.write("mine.py", EXAMPLE.read_text())
    moesim.write(
        "compare.yaml", "scenario: scenario.yaml\npolicies: {LRU: {caching: lru}, mine: {caching: ./mine.py}}\n"
    )
    code, _, told = moesim("compare", "compare.yaml", "--no-report")
    assert code == 2
    assert "--allow-code" in told
    assert moesim("compare", "compare.yaml", "--no-report", "--allow-code")[0] == 0
    runs = moesim.folder / "moesim-out" / "compare" / "runs"
    before = len(list(runs.rglob("*.json")))
    moesim.write("mine.py", EXAMPLE.read_text() + "\n# another text\n")
    assert moesim("compare", "compare.yaml", "--no-report", "--allow-code")[0] == 0
    assert len(list(runs.rglob("*.json"))) == before + 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def victim(:", "mine.py:1: is not Python"),
        ('"""Nothing."""', "defines no function initial_state"),
        (EXAMPLE.read_text().replace("key, now, note", "key, now"), "on_hit must take"),
    ],
)
def test_a_bad_policy_file_is_told_by_check_too(moesim, text, told):
    moesim.write("mine.py", text)
    message = moesim.refused("check", "scenario.yaml", "--set", OWN)
    assert told in message


def test_a_policy_file_that_fails_when_run_is_an_error_of_the_user(moesim):
    moesim.write("mine.py", EXAMPLE.read_text() + "\nraise RuntimeError('no')\n")
    told = moesim.refused("run", "scenario.yaml", "--set", OWN, "--allow-code")
    assert "RuntimeError: no" in told


def test_a_missing_policy_file_is_told(moesim):
    assert "mine.py" in moesim.refused("run", "scenario.yaml", "--set", OWN, "--allow-code")


def test_replay_takes_a_policy_file(moesim):
    moesim.write("mine.py", EXAMPLE.read_text())
    arguments = ("replay", "trace.npz", "--policy", "./mine.py", "--capacity", "3MiB", "--expert-bytes", "1MiB")
    assert "--allow-code" in moesim.refused(*arguments)
    assert moesim(*arguments, "--allow-code")[0] == 0


def test_a_policy_file_compiles_like_any_other(monkeypatch):
    import numpy as np
    from builders import trace_of, visits_for

    rng = np.random.default_rng(0)
    visits = visits_for(trace_of([[rng.permutation(6)[:2]] for _ in range(200)], num_experts=6))
    policy = api.load_file("caching", "mine", EXAMPLE)
    interpreted = count(visits, np.ones(6, np.int64), policy, 3)
    monkeypatch.setattr(counts, "COMPILE_FROM", 0)
    assert (count(visits, np.ones(6, np.int64), policy, 3).hit == interpreted.hit).all()


FROM_THE_END = """
from moesim.policies.caching.fifo import *


def on_hit(state_i, state_f, key, now, note):
    \"\"\"Interpreted, this reads the last place; compiled, an index is unsigned.\"\"\"
    behind = -1
    state_i[behind] = state_i[behind]
"""


def test_a_policy_file_that_counts_from_the_end_is_refused_when_compiled_and_simulated_all_the_same(
    moesim, monkeypatch
):
    import numpy as np
    from builders import setup_of, trace_of, visits_for

    path = moesim.folder / moesim.write("mine.py", '"""FIFO, with a slip."""' + FROM_THE_END)
    policy, trace = api.load_file("caching", "mine", path), trace_of([[[0]], [[0]], [[1]]], num_experts=2)
    monkeypatch.setattr(counts, "COMPILE_FROM", 0)
    with pytest.raises(CompileError, match="outside of its state"):
        count(visits_for(trace), np.ones(2, np.int64), policy, 1)
    monkeypatch.setattr(quickest, "_is_worth_it", lambda _: True)
    monkeypatch.setattr(quickest, "replay_timed", refusing)  # as above; compiling takes its time
    setup = setup_of(trace, slots=2)
    assert isinstance(quickest.figures_of(replace(setup, gpu=replace(setup.gpu, policy=policy))), Outcome)


def refusing(setup, **_):
    raise CompileError.of(setup.gpu.policy.name, "can't be compiled")


def installed(folder: Path, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point, installed as far as Python's metadata tell."""
    info = folder / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[moesim.policies]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_an_installed_package_offers_policies(moesim, monkeypatch):
    moesim.write("elsewhere_policies.py", EXAMPLE.read_text())
    installed(moesim.folder, "caching.second-chance = elsewhere_policies", monkeypatch)
    assert "second-chance" in api.names("caching")
    code, out, _ = moesim("policies", "list")
    assert code == 0
    assert "second-chance" in out
    code, out, _ = moesim(
        "run", "scenario.yaml", "--set", "policies.caching=second-chance", "--no-report", "--no-study"
    )
    assert code == 0


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("caching.absent = no_such_module", "can't be loaded"),
        ("cooking.stew = json", "not called FAMILY.NAME"),
        ("caching.lru = json", "already"),
        ("caching.thing = json", "has no class Params"),
    ],
)
def test_a_plug_in_that_can_t_be_loaded_is_an_error_never_left_out(moesim, monkeypatch, entry, told):
    installed(moesim.folder, entry, monkeypatch)
    assert told in moesim.refused("policies", "list")


def test_a_plug_in_does_not_stand_in_for_a_policy_of_moesim(moesim, monkeypatch):
    installed(moesim.folder, "caching.lru = json", monkeypatch)
    with pytest.raises(PolicyError):
        api.names("caching")
    assert api.load("caching", "lru").module.__name__ == "moesim.policies.caching.lru"
