"""The page of a serving run: well-formed, needs nothing beside it, says what the result says."""

import pytest
from report.html_page import Page, assert_self_contained

from moesim.report.kinds.serving import render_serving
from moesim.scenario import load_scenario
from moesim.scenario.run import result_of

CHAT = {
    "question": "Is it fast & good?",
    "model": "qwen3-30b-a3b",
    "trace": {"file": "none", "synthetic": {"layers": 1, "requests": 2, "prompt": 4, "output": 8}},
    "hardware": "hgx-h100-8",
    "serving": {"max_num_seqs": 8, "max_num_batched_tokens": 128, "slo": {"ttft": "1 s", "tpot": "1 ms"}},
    "arrivals": {"rate": "2 /s", "requests": 12, "prompt": 40, "output": 4},
}


@pytest.fixture(scope="module")
def result():
    return result_of(load_scenario(CHAT))


def test_page_is_well_formed_and_says_what_the_result_says(result):
    html = render_serving(result)
    page = Page(html)
    assert page.open == []
    assert page.tags.count("svg") == 3
    assert_self_contained(html)
    assert render_serving(result) == html
    text = " ".join(page.text.split())
    for told in ("Is it fast & good?", "Synthetic.", "0.0 %", "fewer than the SLO asks for", "measured"):
        assert told in text


def test_what_is_undefined_is_a_dash(result):
    changed = result.model_copy(update={"headline": result.headline.model_copy(update={"tpot_s": None})})
    assert "no request has it" in render_serving(changed)


def test_saturation_is_in_the_answer(result):
    head = result.headline.model_copy(update={"saturated": True})
    assert "the queue grows" in render_serving(result.model_copy(update={"headline": head}))
