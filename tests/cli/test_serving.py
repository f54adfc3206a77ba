"""``moesim run`` and ``check`` of scenarios that serve requests."""

import json

import pytest

SERVING = """\
question: Does it hold?
model: qwen3-30b-a3b
trace: {file: none, synthetic: {layers: 2, requests: 4, prompt: 16, output: 32}}
hardware: hgx-h100-8
serving: {max_num_seqs: 32, max_num_batched_tokens: 512, slo: {ttft: 1 s}}
arrivals: {rate: 5 /s, requests: 40, prompt: 100, output: 12}
"""


def test_a_serving_scenario_runs_and_reports(moesim):
    moesim.write("chat.yaml", SERVING)
    code, out, _ = moesim("run", "chat.yaml", "--out", "served")
    assert code == 0
    for told in ("chat: qwen3-30b-a3b on 1 x 1 NVIDIA H100", "Does it hold?", "TTFT", "100.00% of requests", "met"):
        assert told in out
    assert "What would help most" in out
    assert "synthetic" in out
    saved = json.loads((moesim.folder / "served" / "serving.json").read_text())
    assert saved["kind"] == "serving"
    assert saved["counters"]["ended"] == 40
    assert [change["faster"] for change in saved["what_if"]] == sorted(
        (change["faster"] for change in saved["what_if"]), reverse=True
    )
    page = (moesim.folder / "served" / "report.html").read_bytes()
    assert moesim("report", "served")[0] == 0
    assert (moesim.folder / "served" / "report.html").read_bytes() == page


def test_json_is_what_is_saved_and_the_same_again(moesim):
    moesim.write("chat.yaml", SERVING)
    first = moesim("run", "chat.yaml", "--no-study", "--no-report", "--json")
    again = moesim("run", "chat.yaml", "--no-study", "--no-report", "--json")
    assert first[:2] == again[:2]
    assert (moesim.folder / "moesim-out" / "chat" / "serving.json").read_text() == first[1]


def test_check_says_what_it_is(moesim):
    moesim.write("chat.yaml", SERVING)
    code, out, _ = moesim("check", "chat.yaml")
    assert code == 0
    assert "KV cache of 150,864 tokens each" in out


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rate: 5 /s", "rate: 5", "chat.yaml:6: arrivals.rate: a quantity needs a unit, as in '10 /s'"),
        ("rate: 5 /s, ", "", "needs one of rate, users and file (got none)"),
        ("rate: 5 /s, ", "rate: 5 /s, users: 3, ", "needs one of rate, users and file (got rate, users)"),
        (", prompt: 100", "", "needs prompt and output"),
        ("prompt: 100", "prompt: {mean: 100, cv: -1}", "chat.yaml:6: arrivals.prompt.cv"),
        ("arrivals:", "arrival:", "did you mean 'arrivals'?"),
        ("ttft: 1 s", "ttft: soon", "chat.yaml:5: serving.slo.ttft"),
        ("max_num_seqs: 32", "max_seqs: 32", "did you mean 'max_num_seqs'?"),
        ("hgx-h100-8", "hgx-h100", "chat.yaml:4: hardware"),
        ("file: none, synthetic: {layers: 2, requests: 4, prompt: 16, output: 32}", "file: none", "chat.yaml:3: trace"),
    ],
)
def test_wrong_ones_are_refused_with_place_and_remedy(moesim, old, new, told):
    moesim.write("chat.yaml", SERVING.replace(old, new, 1))
    for command in ("run", "check"):
        assert told in moesim.refused(command, "chat.yaml")
