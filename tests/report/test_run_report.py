"""The page of a run: every number comes from the Result, and the page needs nothing beside itself."""

import pytest
from markupsafe import Markup
from report.html_page import Page, assert_self_contained

from moesim.errors import FileError, ResultError
from moesim.report import render_run, write_report
from moesim.report.figures import bottleneck, layers, time
from moesim.report.figures.canvas import draw
from moesim.report.kinds import run
from moesim.results import save_result


def text_of(result):
    return " ".join(Page(render_run(result)).text.split())


@pytest.fixture
def quick(monkeypatch):
    """Pages with empty figures, for tests of their text."""
    monkeypatch.setattr(run, "draw", lambda *_, **__: Markup("<svg></svg>"))


def test_page_is_well_formed_and_needs_nothing_beside_it(make_result):
    html = render_run(make_result())
    page = Page(html)
    assert page.open == []
    assert page.tags.count("svg") == 7
    assert page.tags.count("h1") == 1
    assert_self_contained(html)


def test_same_result_gives_the_same_bytes(make_result):
    assert render_run(make_result()) == render_run(make_result())


@pytest.mark.parametrize(
    ("path", "before", "value", "after"),
    [
        ("question", "Is it fast & good?", "Or slow?", "Or slow?"),
        ("headline.decode_tokens_per_s", "33.3 tokens/s", 47.1, "47.1 tokens/s"),
        ("headline.output_tokens_per_s", "11.1 output tokens/s", 9.87, "9.87 output tokens/s"),
        ("headline.ttft_s.p50", "1.23 s", 3.21, "3.21 s"),
        ("headline.ttft_s.p99", "p99 2.34 s", 4.32, "p99 4.32 s"),
        ("headline.tpot_s.p50", "30.1 ms", 0.0777, "77.7 ms"),
        ("headline.tpot_s.p99", "p99 50.2 ms", 0.0888, "p99 88.8 ms"),
        ("headline.itl_s.p50", "28.7 ms", 0.0666, "66.6 ms"),
        ("headline.hit_rate_per_lookup", "71.2 %", 0.801, "80.1 %"),
        ("headline.late_rate_per_lookup", "of which late 12.3 %", 0.045, "of which late 4.5 %"),
        ("headline.decode_hit_rate_per_lookup", "decode alone 65.4 %", 0.505, "decode alone 50.5 %"),
        ("headline.decode_late_rate_per_lookup", "late 9.8 %", 0.077, "late 7.7 %"),
        ("headline.fetched_bytes_per_decode_token", "456 MB", 1.21e9, "1.21 GB"),
        ("headline.duration_s", "4.56 s simulated", 6.54, "6.54 s simulated"),
        ("bottleneck.bound_by", "Bound by flash", "PCIe", "Bound by PCIe"),
        ("bottleneck.share", "56.7 % of the time", 0.432, "43.2 % of the time"),
        ("bottleneck.what_if.0.speedup", "1.68×", 1.91, "1.91×"),
        ("bottleneck.what_if.0.output_tokens_per_s", "18.7", 22.9, "22.9"),
        ("breakdown.total.2.seconds", "3.00 s", 3.33, "3.33 s"),
        ("breakdown.decode.0.share", "66.7 %", 0.611, "61.1 %"),
        ("links.0.prefetch_bytes", "4.50 MB", 5_550_000, "5.55 MB"),
        ("bounds.0.ours", "25.0 %", 22.2, "50.0 %"),
        ("bounds.0.value", "44.4 output tokens/s", 55.5, "55.5 output tokens/s"),
        ("counters.activations", "1,234", 4321, "4,321"),
        ("counters.prefetch_wasted", "wasted 93", 41, "wasted 41"),
        ("residency.gpu_slots", "3.5 of 8 experts", 2.5, "2.5 of 8 experts"),
        ("memory.0.bytes", "GPU experts 5.25 MB", 6_660_000, "GPU experts 6.66 MB"),
        ("evidence_shares.measured", "measured 75.0 %", 0.713, "measured 71.3 %"),
        ("evidence.0.share", "PCIe bandwidth 75.0 %", 0.69, "PCIe bandwidth 69.0 %"),
        ("evidence.0.constants.0.value", "26.1 GB/s", 13.2e9, "13.2 GB/s"),
        ("model.expert_bytes", "expert 1.50 MB", 2_220_000, "expert 2.22 MB"),
        ("trace.sha256", "cd" * 32, "ef" * 32, "ef" * 32),
        ("scenario_sha256", "ab" * 32, "12" * 32, "12" * 32),
        ("seed", "--seed 7", 8, "--seed 8"),
        ("moesim_version", "0.0.test", "9.9.9", "9.9.9"),
    ],
)
def test_every_number_comes_from_the_result(quick, make_result, path, before, value, after):
    told, changed = text_of(make_result()), text_of(make_result({path: value}))
    assert before in told
    assert after not in told
    assert after in changed
    assert told.count(before) > changed.count(before)


@pytest.mark.parametrize(
    ("path", "value", "plot", "part"),
    [
        ("bottleneck.what_if.0.speedup", 1.234, bottleneck.speedups, lambda result: result.bottleneck.what_if),
        ("bottleneck.what_if.0.decode_speedup", 1.234, bottleneck.speedups, lambda result: result.bottleneck.what_if),
        ("breakdown.prefill.0.share", 0.123, time.breakdown, lambda result: result),
        ("steps.end_s.3", 2.345, time.steps, lambda result: result.steps),
        ("steps.stall_s.3", 0.012, time.latency_distribution, lambda result: result.steps),
        ("layers.1.stall_s", 0.123, layers.layer_time, lambda result: result.layers),
        ("layers.1.mean_decode_visit_s", 0.0234, layers.layer_time, lambda result: result.layers),
        ("layers.0.late", 12, layers.lookups, lambda result: result.layers),
        ("residency.gpu_share.1.2", 0.123, layers.residency, lambda result: result),
    ],
)
def test_figures_are_drawn_from_the_result(make_result, path, value, plot, part):
    drawn = [draw(plot, part(make_result(changes)), height_in=2.5, alt="") for changes in ({}, {}, {path: value})]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_warnings_stand_before_the_numbers_and_are_escaped(quick, make_result):
    html = render_run(make_result())
    assert html.index("Stand-in.") < html.index('class="headline"')
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "by hand &lt;b&gt;" in html


def test_what_is_undefined_is_a_dash(quick, make_result):
    text = text_of(make_result(prefill=0))
    assert "TTFT, median – the trace has no prefill" in text
    assert "with prefill" not in text


def test_what_if_is_null_when_the_study_was_skipped(quick, make_result):
    result = make_result({"bottleneck.what_if": None})
    assert "not asked for" in text_of(result)
    assert render_run(result).count("<svg") == 6


@pytest.mark.parametrize(
    "shape",
    [
        {"layers": 1, "experts": 1, "decode": 1},
        {"decode": 0},
        {"layers": 58, "experts": 256, "decode": 3000, "prefill": 0},
    ],
)
def test_any_shape_can_be_drawn(make_result, shape):
    html = render_run(make_result(**shape))
    assert Page(html).open == []
    assert len(html) < 400_000


def test_zeros_can_be_drawn(make_result):
    nothing = dict.fromkeys(("lookups", "hits", "late", "misses", "fetched_bytes"), 0)
    row = {"layer": 0, "compute_s": 0.0, "stall_s": 0.0, "mean_decode_visit_s": 0.0} | nothing
    result = make_result({"layers": [row, row], "steps.stall_s": make_result().steps.end_s})
    for plot, data in ((layers.layer_time, result.layers), (layers.lookups, result.layers)):
        draw(plot, data, height_in=2.5, alt="")
    draw(time.latency_distribution, result.steps, height_in=2.5, alt="")


def test_an_unknown_part_of_the_time_is_still_shown(quick, make_result):
    text = text_of(make_result({"breakdown.total.2.name": "stall: moon"}))
    assert "stall: moon 3.00 s" in text


def test_report_of_a_folder_or_a_file(quick, make_result, tmp_path):
    save_result(make_result(), tmp_path / "result.json")
    (tmp_path / "result.json").rename(tmp_path / "other.json")
    with pytest.raises(FileError, match=r"holds none of .*result\.json"):
        write_report(tmp_path, tmp_path / "report.html")
    write_report(tmp_path / "other.json", tmp_path / "a.html")
    (tmp_path / "other.json").rename(tmp_path / "result.json")
    write_report(tmp_path, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_damaged_result_leaves_nothing_behind(tmp_path):
    (tmp_path / "result.json").write_text('{"schema_version": "1.0"}')
    with pytest.raises(ResultError):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
