"""``moesim run``, ``check`` and ``schema``: what they print, write, and say on which stream."""

import json
import os
import subprocess
import sys

import pytest

from moesim.documents import parse_yaml
from moesim.errors import ScenarioError
from moesim.results import load_result

BRIEF = ("--no-report", "--no-study")


def test_results_go_to_stdout_and_timings_to_stderr(moesim):
    code, out, err = moesim("run", "scenario.yaml", *BRIEF)
    assert code == 0
    assert out.startswith("scenario: mixtral-8x7b on desktop-rtx3060-ddr4-32g-nvme3")
    assert "Where the time went" in out
    assert out.endswith("wrote moesim-out/scenario/result.json\n")
    assert err.startswith("took ")
    assert "What would help most" not in out


def test_quiet_says_nothing_on_stderr(moesim):
    assert moesim("--quiet", "run", "scenario.yaml", *BRIEF)[::2] == (0, "")


def test_json_is_the_saved_result_and_nothing_else(moesim):
    code, out, _ = moesim("run", "scenario.yaml", *BRIEF, "--json", "--out", "done")
    saved = (moesim.folder / "done" / "result.json").read_text(encoding="utf-8")
    assert code == 0
    assert out == saved
    assert load_result(moesim.folder / "done" / "result.json").to_json() == saved


def test_a_study_is_added_unless_it_is_left_out(moesim):
    _, out, _ = moesim("run", "scenario.yaml", "--no-report", "--json")
    assert json.loads(out)["bottleneck"]["what_if"]
    _, out, _ = moesim("run", "scenario.yaml", *BRIEF, "--json")
    assert json.loads(out)["bottleneck"]["what_if"] is None


def test_the_last_setting_wins_and_seed_is_a_setting(moesim):
    settings = ("--set", "policies.caching=lfu", "--set", "policies.caching=fifo", "--set", "policies.link=fifo")
    _, out, _ = moesim(
        "run", "scenario.yaml", *BRIEF, "--json", *settings, "--set", "memory.gpu_experts=auto", "--seed", "7"
    )
    result = json.loads(out)
    assert result["seed"] == result["scenario"]["seed"] == 7
    assert result["policies"]["caching"] == {"name": "fifo"}
    assert result["policies"]["link"] == "fifo"
    assert result["scenario"]["memory"]["gpu_experts"] == "auto"


def test_a_setting_reaches_a_number_of_the_hardware(moesim):
    def seconds(*settings):
        out = moesim("run", "scenario.yaml", *BRIEF, "--json", *settings)[1]
        return json.loads(out)["headline"]["duration_s"]

    assert seconds("--set", "hardware.override.link.bandwidth=100 GB/s") < seconds()


def test_a_parameter_is_set_on_the_short_form(moesim):
    settings = ("--set", "policies.prefetch=next-gate", "--set", "policies.prefetch.accuracy=0.5")
    _, out, _ = moesim("run", "scenario.yaml", *BRIEF, "--json", *settings)
    assert json.loads(out)["policies"]["prefetch"]["accuracy"] == 0.5


def test_the_same_seed_gives_the_same_bytes_in_every_process(moesim):
    settings = ["--set", "policies.prefetch={name: next-gate, accuracy: 0.7}", "--seed", "3"]
    command = [sys.executable, "-m", "moesim", "run", "scenario.yaml", *BRIEF, "--json", *settings]
    first, second = (
        subprocess.run(
            command, cwd=moesim.folder, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second
    assert first != moesim("run", "scenario.yaml", *BRIEF, "--json", *settings[:-1], "4")[1].encode()


def test_check_builds_and_writes_nothing(moesim):
    before = moesim.files()
    code, out, err = moesim("check", "scenario.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("scenario.yaml: ok: mixtral-8x7b")
    assert moesim.files() == before


def test_a_scenario_may_come_through_a_pipe(moesim):
    text = (moesim.folder / "scenario.yaml").read_text().replace("trace.npz", str(moesim.folder / "trace.npz"))
    command = [sys.executable, "-m", "moesim", "check", "/dev/stdin"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "list"),
        ("models", "show", "mixtral-8x7b"),
        ("hardware", "list"),
        ("hardware", "show", "rtx-4090"),
        ("policies", "list"),
        ("policies", "show", "lru"),
        ("trace", "info", "trace.npz"),
        ("replay", "trace.npz", "--capacity", "8MB", "--expert-bytes", "1MB"),
    ],
)
def test_json_output_is_json_and_nothing_else(moesim, arguments):
    code, out, err = moesim(*arguments, "--json")
    assert (code, err) == (0, "")
    json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert moesim(*arguments)[0] == 0


def admits(schema, value, rule):
    """Whether a JSON Schema accepts a value: the few keywords that ours uses."""
    if "$ref" in rule:
        rule = schema["$defs"][rule["$ref"].rpartition("/")[2]]
    if "anyOf" in rule:
        return any(admits(schema, value, part) for part in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "object": dict}
    if not isinstance(value, kinds[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean"):
        return False
    if rule["type"] != "object":
        return True
    known, other = rule.get("properties", {}), rule.get("additionalProperties", True)
    rules = [(item, known.get(key, other)) for key, item in value.items()]
    inside = all(part is not False and (part is True or admits(schema, item, part)) for item, part in rules)
    return inside and set(rule.get("required", ())) <= value.keys()


def test_the_schema_accepts_scenarios_and_rejects_slips(moesim):
    schema = json.loads(moesim("schema")[1])
    data = parse_yaml((moesim.folder / "scenario.yaml").read_text(), "scenario", ScenarioError).data
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert admits(schema, data, schema)
    assert admits(schema, {**data, "trace": "trace.npz", "policies": {"caching": {"name": "lru", "x": 1}}}, schema)
    assert not admits(schema, {**data, "memroy": {}}, schema)
    assert not admits(schema, {**data, "memory": {"gpu_experts": 3}}, schema)
    assert not admits(schema, {**data, "policies": {"cachin": "lru"}}, schema)
    assert not admits(schema, {key: value for key, value in data.items() if key != "model"}, schema)


def test_a_sweep_on_a_cluster_shows_steps(capsys):
    from moesim.cli.sweep import CLUSTER_COLUMNS, print_sweep
    from moesim.results.sweep import SweepResult

    figures = {"step_s.mean": 0.098, "tokens_per_s": 83_000.0, "tokens_per_s_per_gpu": 1305.0, "imbalance": 1.27}
    figures |= {"exposed_share": 0.36, "fits": True, "bound_by": "attention decode"}
    row = {"settings": {"parallel.redundant_experts": 64}, "status": "ok", "figures": figures}
    known = {name: field.default for name, field in SweepResult.model_fields.items() if not field.is_required()}
    rows = [SweepResult.model_fields["rows"].annotation.__args__[0].model_construct(message="", **row)]
    print_sweep(SweepResult.model_construct(**known, question="", rows=rows, warnings=[]))
    told = capsys.readouterr().out
    assert all(name.split()[0] in told for name in CLUSTER_COLUMNS)
    assert "98.0 ms" in told
    assert "1,305" in told
