"""The page of routing traces: every number comes from the saved figures, and bounds are named."""

import copy
from functools import cache

import pytest
from markupsafe import Markup
from report.html_page import Page, assert_self_contained, words_of
from typer.testing import CliRunner

from moesim.cli.trace import app
from moesim.errors import ResultError
from moesim.report import render_trace, write_report
from moesim.report.figures import routing
from moesim.report.figures.canvas import draw
from moesim.report.figures.lines import styles
from moesim.report.kinds import trace
from moesim.results.trace_figures import load_traces, save_traces, saved_traces
from moesim.studies.trace_info import describe
from moesim.traces import save_trace
from moesim.traces.synthetic import SyntheticRouting, synthesize

LAYERS = 3


def per_layer(mean, missing=0):
    return {"mean": mean, "layers": [None] * missing + [mean] * (LAYERS - missing)}


def phase(tokens=5000):
    columns = ("batch", "sequence", "requests", "uniform", "bound")
    distinct = [(1, 2.0, 2.0, 2.0, 2), (2, 2.9, 3.1, 3.5, 4), (16, 5.55, None, 7.92, 8)]
    return {
        "tokens": tokens,
        "runs": 4,
        "distinct": [dict(zip(columns, row, strict=True)) for row in distinct],
        "load_cv": per_layer(0.432),
        "effective_experts": per_layer(6.54),
        "consecutive_overlap": per_layer(0.512),
        "chance_overlap": 0.25,
        "next_layer_information": {"mean": 0.191, "layers": [0.19, 0.192]},
        "chance_next_layer_information": {"mean": 0.021, "layers": [0.02, 0.022]},
        "next_layer_first_choice_information": per_layer(0.3),
        "chance_next_layer_first_choice_information": per_layer(0.03),
        "successor_recall": per_layer(0.623, 1),
        "popularity_recall": per_layer(0.345, 1),
        "lookahead_recall": {1: per_layer(0.871, 1), 2: per_layer(0.762, 2)},
        "reuse_within_tokens": {1: 0.5, 8: 0.75, 64: 0.95},
        "cycle_experts": 6.0,
        "cycle_bytes": None,
        "segment_routing_performance": per_layer(0.587),
        "segment_cache_hit_rate": per_layer(0.886),
        "drift_bits": per_layer(0.123),
        "chance_drift_bits": per_layer(0.00456),
        "strongest_pairs": [{"layer": 2, "experts": [3, 7], "tokens": 1234, "lift": 5.67}],
        "domains": [group("prose", 4.5, 0.2), group("code", 3.5, 0.3)],
        "mean_request": group("mean request", 4.0, 0.25),
    }


def group(name, effective, divergence):
    return {"name": name, "tokens": 100.0, "effective_experts": effective, "divergence_from_rest": divergence}


def plain(**changes):
    curve = {"lookups": 999, "capacity_share": [0.125, 0.25, 0.75], "capacity_bytes": [3, 6, 18]}
    figures = {
        "name": "talk",
        "model": "tiny-moe",
        "sha256": "ab" * 32,
        "origin": "captured",
        "labels": [],
        "transforms": [],
        "licence": "Apache-2.0",
        "requests": 4,
        "tokens": 5000,
        "tokens_used": 5000,
        "layers": LAYERS,
        "experts": 8,
        "top_k": 2,
        "recorded_share": 1.0,
        "phases": {"decode": phase()},
        "layer_lru": {"slots": 4, "lookups": 100, "hit_rate_per_lookup": 0.789, "uniform": 0.5},
        "hit_curves": [
            curve | {"policy": "lru", "hit_rate_per_lookup": [0.0, 0.6, 0.9]},
            curve | {"policy": "belady", "hit_rate_per_lookup": [0.3, 0.7, 0.9]},
        ],
        "card": {"source": "a <b>book</b>", "notes": ["read & kept"], "statistics": {"x": 1}},
    }
    return figures | changes


def make(changes=None, **top):
    data = copy.deepcopy(plain(**top))
    for path, value in (changes or {}).items():
        *folders, last = (int(part) if part.isdigit() and part not in data else part for part in path.split("."))
        place = data
        for folder in folders:
            place = place[folder]
        place[last] = value
    return data


def page(*traces):
    return render_trace(saved_traces(traces or (make(),)))


@pytest.fixture
def quick(monkeypatch):
    """Pages with empty figures, for tests of their text."""
    monkeypatch.setattr(trace, "draw", lambda *_, **__: Markup("<svg></svg>"))


@pytest.mark.parametrize("traces", [[make()], [make(), make(name="other")]])
def test_page_is_well_formed_and_needs_nothing_beside_it(traces):
    html = page(*traces)
    assert_self_contained(html)
    assert html.count('role="img"') == 8 + 2 * len(traces)
    assert page(*traces) == html


def test_what_trace_info_finds_is_what_the_page_reads():
    routing = synthesize(SyntheticRouting(num_layers=4, num_experts=8, top_k=2, requests=3))
    found = describe(routing, curve_policies=("lru",)).to_dict()
    words = words_of(page(found))
    assert "Synthetic." in words
    overlap = found["phases"]["decode"]["consecutive_overlap"]["mean"]
    assert f"A token shares {100 * overlap:.1f} % of its experts" in words


@pytest.mark.parametrize(
    ("path", "before", "value", "after"),
    [
        ("phases.decode.distinct.2.sequence", "touch 5.55 of a layer's 8 experts", 6.66, "touch 6.66 of a layer's 8"),
        ("phases.decode.distinct.2.uniform", "uniform routing: 7.92", 7.77, "uniform routing: 7.77"),
        ("phases.decode.consecutive_overlap.mean", "51.2 %", 0.333, "33.3 %"),
        ("phases.decode.consecutive_overlap.mean", "2.05× chance", 0.75, "3.00× chance"),
        ("layer_lru.hit_rate_per_lookup", "hits 78.9 % of lookups", 0.654, "hits 65.4 % of lookups"),
        ("phases.decode.load_cv.mean", "0.432", 0.987, "0.987"),
        ("phases.decode.effective_experts.mean", "6.54", 7.65, "7.65"),
        ("phases.decode.next_layer_information.mean", "19.1 % chance 2.1 %", 0.222, "22.2 % chance 2.1 %"),
        ("phases.decode.chance_next_layer_information.mean", "19.1 % chance 2.1 %", 0.033, "19.1 % chance 3.3 %"),
        ("phases.decode.successor_recall.mean", "62.3 % chance 34.5 %", 0.7, "70.0 % chance 34.5 %"),
        ("phases.decode.popularity_recall.mean", "62.3 % chance 34.5 %", 0.4, "62.3 % chance 40.0 %"),
        ("phases.decode.segment_routing_performance.mean", "58.7 %", 0.611, "61.1 %"),
        ("phases.decode.segment_cache_hit_rate.mean", "88.6 %", 0.911, "91.1 %"),
        ("phases.decode.cycle_experts", "hits next to nothing 6.00", 7.0, "hits next to nothing 7.00"),
        ("phases.decode.cycle_bytes", "nothing 6.00", 5.5e6, "nothing 6.00 (5.50 MB)"),
        ("phases.decode.drift_bits.mean", "0.123 chance 0.00456", 0.234, "0.234 chance 0.00456"),
        ("phases.decode.strongest_pairs.0.lift", "1,234 5.67", 6.78, "1,234 6.78"),
        ("sha256", "ab" * 32, "cd" * 32, "cd" * 32),
        ("licence", "licence Apache-2.0", "CC0", "licence CC0"),
        ("card", "read & kept", {"notes": ["thrown away"]}, "thrown away"),
    ],
)
def test_every_number_comes_from_the_figures(quick, path, before, value, after):
    told, changed = words_of(page()), words_of(page(make({path: value})))
    assert before in told
    assert told.count(after) < changed.count(after)
    assert told.count(before) > changed.count(before) or after.startswith(before)


def test_lookahead_is_told_by_distance(quick):
    words = words_of(page())
    assert "is asked early 87.1 %" in words
    assert "is asked early 76.2 %" in words
    assert "asked 1 layer early; dashed, 2 layers early" in words
    without = copy.deepcopy(plain())
    without["phases"]["decode"]["lookahead_recall"] = {}
    assert "is asked early" not in words_of(page(without))


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("overlap", "consecutive_overlap", per_layer(0.6)),
        ("overlap", "chance_overlap", 0.3),
        ("load", "load_cv", per_layer(0.6)),
        ("next_layer", "successor_recall", per_layer(0.6)),
        ("next_layer", "popularity_recall", per_layer(0.6)),
        ("information", "next_layer_information", per_layer(0.15)),
        ("lookahead", "lookahead_recall", {1: per_layer(0.6)}),
        ("segments", "segment_cache_hit_rate", per_layer(0.6)),
        ("segments", "segment_routing_performance", per_layer(0.6)),
        ("reuse", "reuse_within_tokens", {1: 0.4, 8: 0.75, 64: 0.95}),
        ("hits", "cycle_experts", 4.0),
        ("hits", "cycle_bytes", 4.0),
    ],
)
def test_the_charts_are_drawn_from_the_figures(name, path, value):
    before, after = unchanged(), drawn_of(make({f"phases.decode.{path}": value}))
    assert before[name] != after[name]
    assert all(before[other] == after[other] for other in before if other != name)


@cache
def unchanged():
    return drawn_of(make())


def drawn_of(data):
    figures = saved_traces([data]).traces[0]
    return trace.charts([trace.tell("talk", figures, styles(["talk"])["talk"])])


@pytest.mark.parametrize(("column", "value"), [("sequence", 3.0), ("requests", 3.3), ("uniform", 3.6), ("bound", 5)])
def test_the_first_figure_is_drawn_from_the_figures(column, value):
    drawn = []
    for changes in ({}, {f"phases.decode.distinct.1.{column}": value}):
        rows = saved_traces([make(changes)]).traces[0].phases["decode"].distinct
        drawn.append(draw(routing.distinct, (rows, "#0072b2"), height_in=2.5, alt=""))
    assert drawn[0] != drawn[1]


def test_the_cliff_stands_where_one_tokens_cycle_fits():
    """6 experts of 24 are a quarter; with sizes, bytes count: 12 of 24."""
    for changes, share in (({}, 0.25), ({"phases.decode.cycle_bytes": 12.0}, 0.5)):
        figures = saved_traces([make(changes)]).traces[0]
        one = trace.tell("talk", figures, styles(["talk"])["talk"])
        assert [place for place, _ in trace._cliff(one)] == [share]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"origin": "synthetic"}, "Synthetic. talk was generated"),
        ({"labels": ["stand-in"]}, "Stand-in. says the card of talk."),
        ({"card": {"training": {"steps": 9}}}, "Small model. the model behind talk was trained for it"),
        ({"transforms": ["prune(4)"]}, "Transformed. talk: prune(4)."),
        ({"tokens": 9000}, "rest on its first 5,000 of 9,000 tokens"),
        ({"phases": {"decode": phase(tokens=12)}}, "talk has 12 tokens of decode: its figures are rough"),
        ({"phases": {"prefill": phase()}}, "No decode. talk has no decode tokens"),
    ],
)
def test_what_to_beware_of_is_said_before_the_figures(quick, changes, told):
    assert told not in words_of(page())
    words = words_of(page(make(**changes)))
    assert words.index(told) < words.index("Experts that a batch touches")


def test_several_traces_stand_side_by_side(quick):
    other = make({"phases.decode.consecutive_overlap.mean": 0.3, "experts": 16}, name="other")
    words = words_of(page(make(), other))
    assert "a token shares experts with the one before 1.20× to 2.05×" in words
    assert "talk decode other decode" in words
    assert "51.2 % chance 25.0 % 30.0 % chance 25.0 %" in words


def test_two_traces_of_one_name_are_told_apart(quick):
    assert "talk (2)" in words_of(page(make(), make()))


def test_text_of_a_card_is_escaped(quick):
    assert "a &lt;b&gt;book&lt;/b&gt;" in page()


def test_bounds_are_named(quick):
    words = words_of(page())
    assert "sees the next 16 tokens, a bound" in words
    assert "belady, which knows the future, a bound" in words


def test_a_trace_of_which_little_is_known_can_be_shown():
    bare = phase(tokens=1)
    nothing = {"mean": None, "layers": [None] * LAYERS}
    for name, value in bare.items():
        if isinstance(value, dict) and "mean" in value:
            bare[name] = nothing
    bare |= {"distinct": [bare["distinct"][0] | {"sequence": None, "requests": None}], "lookahead_recall": {}}
    bare |= {"reuse_within_tokens": {1: None}, "cycle_experts": None, "strongest_pairs": [], "domains": []}
    lru = {"slots": 4, "lookups": 0, "hit_rate_per_lookup": None, "uniform": 0.5}
    html = page(make(phases={"all": bare | {"mean_request": None}}, layer_lru=lru, hit_curves=[], card={}))
    assert Page(html).open == []
    assert "It has too few tokens for any figure." in words_of(html)


def test_saved_figures_come_back(tmp_path):
    saved = saved_traces([make(), make(name="other")])
    save_traces(saved, tmp_path / "trace.json")
    assert load_traces(tmp_path / "trace.json") == saved
    write_report(tmp_path, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == render_trace(saved)


def test_the_command_writes_both_files(quick, tmp_path):
    save_trace(synthesize(SyntheticRouting(num_layers=2, num_experts=4, top_k=2, output_tokens=20)), tmp_path / "a.npz")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    saved = load_traces(tmp_path / "out" / "trace.json")
    assert (tmp_path / "out" / "report.html").read_text() == render_trace(saved)
    assert saved.traces[0].card["origin"] == "synthetic"


def test_damaged_figures_are_refused(tmp_path):
    (tmp_path / "trace.json").write_text('{"schema_version": "1.0", "kind": "trace", "traces": []}')
    with pytest.raises(ResultError, match="traces"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
