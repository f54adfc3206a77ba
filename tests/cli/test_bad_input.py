"""Bad input: one clear message (place, cause, what to try) on stderr, exit code 2, no traceback, nothing written."""

import os
import subprocess
import sys

import pytest

from moesim.documents.plain_yaml import MAX_DEPTH

HARDWARE = "desktop-rtx3060-ddr4-32g-nvme3"


#: Name: (what stands in the scenario, what to put there instead, parts of what is said).
SCENARIOS = {
    "unknown key": ("memory:", "memroy:", ["scenario.yaml:6: memroy: unknown key", "did you mean 'memory'?"]),
    "unknown inner key": ("gpu_experts:", "gpu_expert:", [":7: memory.gpu_expert: unknown key", "'gpu_experts'"]),
    "unknown model": ("mixtral-8x7b", "mixtral-8x7", [":1: model: unknown name", "did you mean 'mixtral-8x7b'?"]),
    "unknown node": (HARDWARE, "desktop-rtx3060", [":3: hardware: node: unknown name", f"did you mean '{HARDWARE}'?"]),
    "unknown policy": ("caching: lru", "caching: lruu", [":5: policies.caching: unknown name", "did you mean 'lru'?"]),
    "policy parameter": (
        "caching: lru",
        "caching:\n    name: lru\n    foo: 1",
        [":7: policies.caching.foo: 'lru' has no parameter 'foo'"],
    ),
    "policy as list": ("caching: lru", "caching: [lru]", [":5: policies.caching: must be text, or a mapping"]),
    "policies as text": ("policies:\n  caching: lru", "policies: lru", [":4: policies: must be a mapping", "caching"]),
    "missing key": ("model: mixtral-8x7b\n", "", ["model: is required"]),
    "null": ("model: mixtral-8x7b", "model:", [":1: model: input should be a valid string (got nothing)"]),
    "key twice": ("workload: {", "workload: {requests: 1, ", [":9: workload.requests: stands twice"]),
    "missing trace": (
        "trace.npz",
        "trase.npz",
        [":2: trace.file: trase.npz: no such file", "did you mean 'trace.npz'?"],
    ),
    "folder as trace": ("trace.npz", ".", [":2: trace.file: .: is a folder without .npy files"]),
    "device as trace": ("trace.npz", "/dev/zero", [":2: trace.file: /dev/zero: is a special file"]),
    "text as trace": ("trace.npz", "scenario.yaml", [":2: trace.file: scenario.yaml: is not a sound .npz"]),
    "no stand-in": (", stand_in: true", "", [":2: trace: trace.npz: was recorded from by hand", "stand_in: true"]),
    "other shape": ("mixtral-8x7b", "gpt-oss-20b", [":2: trace: trace.npz: routes 2 of 8 experts"]),
    "bare number": ("4 GiB", "4", [":7: memory.gpu_experts: a quantity needs a unit, as in '24 GiB'", "(got 4)"]),
    "wrong unit": ("4 GiB", "4 GB/s", [":7: memory.gpu_experts: unknown unit 'GB/s'"]),
    "negative": ("4 GiB", "-4 GiB", [":7: memory.gpu_experts: must be finite and not negative"]),
    "NaN": ("4 GiB", "nan GiB", [":7: memory.gpu_experts: not a quantity"]),
    "infinite": ("4 GiB", "1e400 GiB", [":7: memory.gpu_experts: must be finite"]),
    "huge": ("4 GiB", "1e30 GiB", [":7: memory.gpu_experts: must be at most 1 EiB", "check the unit"]),
    "too large for the GPU": ("4 GiB", "40 GiB", [":7: memory.gpu_experts: 42.9 GB for experts do not fit"]),
    "too small for an expert": ("4 GiB", "1 MiB", [":7: memory.gpu_experts: 1048576 bytes do not hold one expert"]),
    "too small on the host": ("20 GiB", "0 B", [":8: memory.host_experts: 0 bytes do not hold one expert"]),
    "nothing left": (
        "gpu_experts: 4 GiB",
        "gpu_reserve: 1 TiB",
        [":6: memory.gpu_experts: nothing is left for experts"],
    ),
    "huge batch": (
        "requests: 2",
        "batch: 1000000000",
        [":9: workload.batch: input should be less than or equal to 4096"],
    ),
    "zero requests": (
        "requests: 2",
        "requests: 0",
        [":9: workload.requests: input should be greater than or equal to 1"],
    ),
    "too many requests": ("requests: 2", "requests: 9", [":9: workload.requests: 9 requests are wanted", "at most 3"]),
    "all warm-up": ("requests: 2", "warmup_requests: 3", [":9: workload: no request of the trace's 3 is left"]),
    "all training": ("requests: 2", "train_fraction: 0.99", [":9: workload: no request of the trace's 3 is left"]),
    "yes for a number": ("requests: 2", "requests: true", [":9: workload.requests: input should be a valid integer"]),
    "text for a number": ("requests: 2", "requests: '2'", [":9: workload.requests: input should be a valid integer"]),
    "fraction not a number": (
        "requests: 2",
        "train_fraction: .nan",
        [":9: workload.train_fraction: input should be a fin"],
    ),
    "400 digits": ("requests: 2", f"requests: {'9' * 400}", [":9: a number of 400 digits"]),
    "5000 digits": ("requests: 2", f"requests: {'9' * 5000}", [":9: a number of 5000 digits"]),
    "negative seed": ("model:", "seed: -1\nmodel:", [":1: seed: input should be greater than or equal to 0"]),
    "huge seed": ("model:", f"seed: {2**63}\nmodel:", [":1: seed: input should be less than or equal to"]),
    "static without training": (
        "caching: lru",
        "caching: static",
        [":5: policies.caching: 'static' learns", "train_fraction"],
    ),
    "oracle below": ("caching: lru", "host_caching: belady", [":5: policies.host_caching: 'belady' needs the future"]),
    "recorded steps": ("requests: 2", "batching: recorded", [":9: workload: by hand: does not record"]),
    "only a GPU": (
        HARDWARE,
        "{gpu: rtx-4090}",
        [":3: hardware: cpu: is required", "hardware: host_memory: is required"],
    ),
    "override of nothing": (
        HARDWARE,
        f"{{node: {HARDWARE}, override: {{gpu.x: 1}}}}",
        [":3: hardware.override.gpu.x: no number 'x' here"],
    ),
    "override that takes forever": (
        HARDWARE,
        f"{{node: {HARDWARE}, override: {{storage.read_bandwidth: 1e-320 B/s}}}}",
        [":3: hardware.override.storage.read_bandwidth: '1e-320 B/s' is 0 times the card's number", "unit"],
    ),
    "overrides that take no time": (
        HARDWARE,
        f"{{node: {HARDWARE}, override: {{gpu.memory_bandwidth: 1e299 GB/s, gpu.compute.bf16: 1e290 TFLOPS}}}}",
        [":3: hardware.override.gpu.memory_bandwidth: '1e299 GB/s' is", "hardware.override.gpu.compute.bf16: "],
    ),
}


@pytest.mark.parametrize("case", SCENARIOS)
def test_a_wrong_scenario_is_told_by_line(moesim, case):
    old, new, parts = SCENARIOS[case]
    text = (moesim.folder / "scenario.yaml").read_text()
    assert old in text
    moesim.write("scenario.yaml", text.replace(old, new))
    for command in (["check"], ["run", "--no-report"]):
        err = moesim.refused(*command, "scenario.yaml")
        assert [part for part in parts if part not in err] == []


FILES = {
    "empty": (b"", "must be a mapping of keys to values"),
    "a list": (b"- 1\n", "x.yaml:1: must be a mapping"),
    "plain text": (b"hello", "x.yaml:1: must be a mapping"),
    "several documents": (b"a: 1\n---\nb: 2\n", "x.yaml:2: a second document begins"),
    "a tab": (b"a:\n\tb: 1\n", "indent with spaces, not tabs"),
    "UTF-16": ("a: 1".encode("utf-16"), "is not UTF-8 text"),
    "binary": (bytes(range(256)), "is not UTF-8 text (byte 128)"),
    "a control character": (b'a: "\x07"', "not valid YAML"),
    "an alias": (b"a: &x 1\nb: *x\n", "x.yaml:2: anchors and aliases are not supported"),
    "a bomb": (b"a: &a [x, x]\n" + b"".join(b"b%d: [*a, *a, *a, *a, *a, *a]\n" % n for n in range(9)), "and 35 more"),
    "a tag": (b'a: !!python/object/apply:os.system ["touch owned"]\n', "x.yaml:1: tags are not supported"),
    "deep nesting": (b"[" * 100_000, f"x.yaml:1: is nested too deeply: more than {MAX_DEPTH} levels"),
    "deep mappings": (b"{a: " * 100_000, "is nested too deeply"),
    "a list as key": (b"? [a, b]\n: 1\n", "x.yaml:1: a key must be plain text"),
    "an open bracket": (b"a: [1\n", "not valid YAML"),
    "too large": (b"#" * (5 * 2**20), "is too large"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_scenario(moesim, case):
    content, part = FILES[case]
    assert part in moesim.refused("run", moesim.write("x.yaml", content))


def test_all_faults_of_a_file_are_told_at_once_in_its_order(moesim):
    moesim.write("x.yaml", "model: 1\ntrace: {fil: a}\nhardware: []\npolicies: {scope: all}\nseed: x\nfoo: 1\n")
    err = moesim.refused("check", "x.yaml")
    lines = [line.split(": ")[0] for line in err.splitlines() if line.startswith("x.yaml")]
    assert lines == [f"x.yaml:{line}" for line in (1, 2, 2, 3, 4, 5, 6)]


def test_all_unknown_names_are_told_at_once(moesim):
    moesim.write("x.yaml", "model: a\ntrace: b.npz\nhardware: c\npolicies: {caching: d, prefetch: e, on_miss: f}\n")
    err = moesim.refused("check", "x.yaml")
    places = ("model", "hardware", "trace.file", "policies.caching", "policies.prefetch", "policies.on_miss")
    assert [place for place in places if f" {place}: " not in err] == []


SETTINGS = {
    "x": "must be of the form key=value",
    "": "must be of the form key=value",
    "=1": "must be of the form key=value",
    "a..b=1": "must be of the form key=value",
    "seed": "must be of the form key=value",
    "seed=-1": "--set seed=-1: seed: input should be greater",
    "memory.gpu_experts=3": "--set memory.gpu_experts=3: memory.gpu_experts: a quantity needs a unit",
    "memory.gpu_experts=": "(got nothing)",
    "memory.gpu_experts.x=1": "'gpu_experts' is not a mapping",
    "memory.gpu_expert=1": "did you mean 'gpu_experts'?",
    "policies.caching.foo=1": "--set policies.caching.foo=1: policies.caching.foo: 'lru' has no parameter",
    "policies.caching={name: lru, a: 1, a: 2}": "a: stands twice",
    "workload=[1": "not valid YAML",
    "question=a: b": "input should be a valid string",
    "trace.file=no.npz": "no.npz: no such file",
    "hardware.gpu=rtx-409": "hardware.gpu: unknown name 'rtx-409'",
    "hardware.override.link.bandwith=1 GB/s": "did you mean 'bandwidth'?",
    "x" + ".y" * 5000 + "=1": "must be of the form key=value",
    "question=" + "[" * 5000: "is nested too deeply",
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting[:40])
def test_a_wrong_setting_is_told_as_it_was_typed(moesim, setting):
    assert SETTINGS[setting] in moesim.refused("run", "scenario.yaml", "--set", setting)


COMMANDS = {
    ("run", "senario.yaml"): "did you mean 'scenario.yaml'?",
    ("run", "."): "is a directory",
    ("run", ""): "is a directory",
    ("run", "/dev/zero"): "is too large",
    ("run", "scenario.yaml/x"): "Not a directory",
    ("run", "x" * 5000): "File name too long",
    ("run", "scenario.yaml", "--out", "trace.npz"): "is a file, not a folder",
    ("run", "scenario.yaml", "--out", "trace.npz/a/b"): "Not a directory",
    ("run", "scenario.yaml", "--out", "/proc/a"): "can't be written to",
    ("run", "scenario.yaml", "--out", "/dev/full"): "is a file, not a folder",
    ("run", "scenario.yaml", "--seed", "-1"): "greater than or equal to 0",
    ("run", "scenario.yaml", "--seed", "x"): "valid integer",
    ("run", "scenario.yaml", "--nope"): "No such option",
    ("runn", "scenario.yaml"): "Did you mean 'run'?",
    ("replay", "trase.npz", "--capacity", "1GiB"): "did you mean 'trace.npz'?",
    ("replay", "trace.npz"): "give one of --capacity, --capacities and --all-sizes",
    ("replay", "trace.npz", "--capacity", "1GiB"): "--expert-bytes",
    ("replay", "trace.npz", "--capacity", "5", "--expert-bytes", "1MB"): "a quantity needs a unit",
    ("replay", "trace.npz", "--capacity", "0B", "--expert-bytes", "1MB"): "must be from 1 byte",
    ("replay", "trace.npz", "--capacity", "1e30GiB", "--expert-bytes", "1MB"): "check the unit",
    ("replay", "trace.npz", "--capacity", "1GiB", "--expert-bytes", "1e30GiB"): "check the unit",
    ("replay", "trace.npz", "--capacity", "1kB", "--expert-bytes", "1MB"): "do not hold the largest expert",
    ("replay", "trace.npz", "--capacities", "1GB,,2GB", "--expert-bytes", "1MB"): "not a quantity",
    ("replay", "trace.npz", "--capacity", "1GB", "--expert-bytes", "1MB", "--policy", "lruu"): "did you mean 'lru'?",
    ("replay", "trace.npz", "--capacity", "1GB", "--expert-bytes", "1MB", "--policy", "static"): "training split",
    ("replay", "trace.npz", "--capacity", "1GB", "--expert-bytes", "1MB", "--train-fraction", "nan"): "Invalid value",
    ("replay", "trace.npz", "--capacity", "1GB", "--expert-bytes", "1MB", "--train-fraction", "0.99"): "leaves none",
    ("replay", "trace.npz", "--capacity", "1GB", "--expert-bytes", "1MB", "--plot", "."): "is a directory",
    ("replay", "trace.npz", "--capacity", "1GB", "--expert-bytes", "1MB", "--plot", "trace.npz/x.svg"): "is a file",
    ("replay", "/dev/zero", "--capacity", "1GB"): "is a special file",
    ("report", "nowhere"): "is not a folder",
    ("report", "."): "holds none of capacity.json, ",
    ("reports", "build", "--folder", "."): "reports.yaml: no such file",
    ("trace", "info", "scenario.yaml"): "is not a sound .npz",
    ("trace", "import", "neutrl", "trace.npz", "-o", "x.npz"): "did you mean 'neutral'?",
    ("trace", "import", "neutral", "no.npz", "-o", "new/x.npz"): "no such file",
    ("trace", "import", "neutral", "trace.npz", "-o", "x.npz", "--option", "a"): "NAME=VALUE",
    ("models", "show", "mixtral"): "did you mean 'mixtral-8x7b'?",
    ("hardware", "show", "rtx-409"): "did you mean 'rtx-4090'?",
    ("policies", "show", "../lru"): "unknown policy",
}


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments)[:60])
def test_a_wrong_command_line(moesim, arguments):
    assert COMMANDS[arguments] in moesim.refused(*arguments)


def test_a_device_is_never_replaced_by_an_output(moesim):
    assert moesim("run", "scenario.yaml", "--no-report", "--no-study", "--out", "done")[0] == 0
    assert "is a device, not a file" in moesim.refused("report", "done", "--out", "/dev/null")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(moesim):
    code, out, err = moesim("--debug", "run", "nope.yaml")
    assert (code, out) == (2, "")
    assert "Traceback" in err


def test_names_with_spaces_quotes_and_letters_of_any_script(moesim):
    odd = "a 'b' \"c\" [red] – ü 漢.yaml"
    moesim.write(odd, (moesim.folder / "scenario.yaml").read_bytes())
    code, out, _ = moesim("check", odd)
    assert (code, out.startswith(f"{odd}: ok")) == (0, True)
    assert f"{odd}:9: " in moesim.refused("check", moesim.write(odd, "model: m\n" + "#\n" * 7 + "seed: x\n"))


def spawn(moesim, *arguments, **options):
    command = [sys.executable, "-m", "moesim", *arguments]
    return subprocess.Popen(command, cwd=moesim.folder, stderr=subprocess.PIPE, **options)


def test_a_closed_pipe_ends_quietly(moesim):
    reading, writing = os.pipe()
    os.close(reading)
    with spawn(moesim, "models", "list", stdout=writing) as process:
        os.close(writing)
        assert process.stderr.read() == b""
    assert process.returncode not in (0, 2)


def test_a_full_disk_is_an_error(moesim):
    with open("/dev/full", "w") as full, spawn(moesim, "schema", stdout=full) as process:
        assert process.stderr.read() == b"the output: No space left on device\n"
    assert process.returncode == 2


def test_an_interrupt_leaves_nothing(moesim):
    moesim.write("scenario.yaml", (moesim.folder / "scenario.yaml").read_text().replace("{requests: 2}", "{}"))
    code = (
        "import os, signal, sys, moesim.scenario.run as engine, moesim.cli\n"
        "def interrupt(setup): os.kill(os.getpid(), signal.SIGINT)\n"
        "engine.figures_of = interrupt\n"
        "sys.argv = ['moesim', 'run', 'scenario.yaml', '--out', 'a/b']\n"
        "moesim.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=moesim.folder, capture_output=True, check=False)
    assert done.returncode == 130
    assert b"Traceback" not in done.stderr
    assert moesim.files() == {"scenario.yaml", "trace.npz"}
