"""The page of a comparison: who wins is said first and rightly, and every number comes from the saved comparison."""

import copy
import itertools
from functools import cache

import pytest
from markupsafe import Markup
from report.html_page import Page, assert_self_contained, words_of

from moesim.report import render_comparison, write_report
from moesim.report.figures import comparison as drawings
from moesim.report.figures import palette
from moesim.report.figures.canvas import draw
from moesim.report.figures.lines import styles
from moesim.report.kinds import comparison
from moesim.report.standings import answer, places
from moesim.results.comparison import ComparisonResult

#: Mean TPOT over the best's, its interval, and whether it is distinguishable, by cache size and policy.
SMALL = {
    "belady": (0.8, (0.75, 0.85), True),
    "lru": (1.0, None, None),
    "lfu": (1.2, (1.11, 1.32), True),
    "gate": (1.5, (1.4, 1.6), True),
}
LARGE = {
    "gate": (1.0, None, None),
    "lru": (1.01, (0.99, 1.03), False),
    "belady": (1.02, (1.01, 1.03), True),
    "lfu": (1.1, (1.05, 1.15), True),
}
SLOTS = {"1 GiB": 80.0, "2 GiB": 160.0}


def cell(size, seed=0):
    return {"trace": "chat", "machine": "desk", "gpu_experts": size, "seed": seed}


def run(size, policy, place, seed=0):
    """A run; ``place``: a number that no other run has."""
    return {
        "cell": cell(size, seed),
        "policy": policy,
        "needs_future": policy == "belady",
        "gpu_slots": SLOTS[size],
        "decode_tokens_per_s": 40.0 + place,
        "output_tokens_per_s": 20.0 + place,
        "hit_rate_per_lookup": 0.5 + place / 100,
        "late_rate_per_lookup": 0.01 * place,
        "fetched_bytes_per_decode_token": 1e8 + 1e6 * place,
        "fetches": 4000 + 100 * place,
        "fewest_fetches": 2000,
        "prefetch_wasted_bytes": 3_210_000_000 if policy == "gate" else 0,
        "bound_by": "PCIe",
        "bound_by_share": 0.4 + place / 100,
        "limited_by": "policy",
        "requests": [1, 2, 3, 4, 5],
        "tpot_s": [0.01, 0.02, 0.03, 0.02, 0.01],
        "evidence_shares": {"measured": 0.613, "assumed": 0.387},
    }


def plain():
    cells = [(size, policy) for size in SLOTS for policy in SMALL]
    runs = [run(size, policy, place) for place, (size, policy) in enumerate(cells)]
    ranking = [
        {
            "cell": cell(size),
            "policy": policy,
            "needs_future": policy == "belady",
            "mean_tpot_s": 0.0201 * ratio,
            "slower_than_best": ratio,
            "interval": interval,
            "distinguishable": told,
        }
        for size, rows in (("1 GiB", SMALL), ("2 GiB", LARGE))
        for policy, (ratio, interval, told) in rows.items()
    ]
    cliff = {"trace": "chat", "machine": "desk", "policy": "lru", "smaller": "1 GiB", "larger": "2 GiB"}
    odd = {"hits_more": "gate", "runs_faster": "lfu", "hit_rates": (0.777, 0.666), "decode_tokens_per_s": (12.3, 23.4)}
    return {
        "moesim_version": "0.0.test",
        "question": "Which one & why?",
        "comparison": {
            "scenario": "base.yaml",
            "policies": {"lru": {"caching": "lru"}, "gate": {"prefetch": {"name": "next-gate", "lookahead": 2}}},
            "machines": {"desk": {}},
        },
        "base_scenario": {"model": "tiny", "hardware": {"gpu": None}},
        "runs": runs,
        "ranking": ranking,
        "cliffs": [cliff | {"size_ratio": 2.0, "speedup": 3.28}],
        "paradoxes": [odd | {"cell": cell("1 GiB"), "why": "it came late"}],
        "warnings": ["caching 'belady' knows the future: a bound.", "stand-in: the routing is <b>another's</b>."],
    }


def make(changes=None):
    data = copy.deepcopy(plain())
    for path, value in (changes or {}).items():
        *folders, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place = data
        for folder in folders:
            place = place[folder]
        place[last] = value
    return ComparisonResult.model_validate(data)


def keep(policies):
    """Of these policies only."""
    data = plain()
    for part in ("runs", "ranking"):
        data[part] = [row for row in data[part] if row["policy"] in policies]
    return ComparisonResult.model_validate(data | {"cliffs": [], "paradoxes": []})


@pytest.fixture
def quick(monkeypatch):
    """Pages with empty figures, for tests of their text."""
    monkeypatch.setattr(comparison, "draw", lambda *_, **__: Markup("<svg></svg>"))


def test_page_is_well_formed_and_needs_nothing_beside_it():
    html = render_comparison(make())
    assert_self_contained(html)
    assert html.count('role="img" aria-label="Mean TPOT') == 2
    assert html.count("over cache size, chat on desk") == 5
    assert render_comparison(make()) == html


def test_the_answer_says_who_wins_where_by_how_much_and_how_surely():
    assert answer(places(make())) == (
        "lru is the fastest, or not distinguishable from the fastest, in all 2 cases "
        "(surely ahead of all others in 1). "
        "Where lru is surely ahead, the next one is 20.0 % slower. "
        "With knowledge of the future, which no system has, belady reaches between 0.98× and 1.25× the speed of the "
        "fastest real policy; where that is less, the real policy does something that foresight alone does not make "
        "up for."
    )


def test_the_answer_names_what_the_winner_loses():
    told = answer(places(make({"ranking.5.distinguishable": True, "ranking.5.slower_than_best": 1.07})))
    assert told.startswith("lru is the fastest in 1 of 2 cases.")
    assert "Elsewhere the fastest is gate (2 GiB); lru is at most 7.0 % slower than gate at 2 GiB." in told


def test_a_tie_is_never_called_a_win():
    told = answer(places(make({"ranking.2.distinguishable": False})))
    assert "surely ahead of all others in none of them" in told
    assert "the next one is" not in told


def test_too_few_requests_are_said():
    told = answer(places(make({"ranking.2.distinguishable": None, "ranking.2.interval": None})))
    assert "In one case there are too few requests to say how sure the order is." in told


def test_one_policy_is_not_ranked():
    assert answer(places(keep(["lru"]))) == "Only one policy was run, so there is nothing to rank."


def test_without_decode_nothing_is_ranked(quick):
    data = plain() | {"ranking": [], "cliffs": [], "paradoxes": []}
    for row in data["runs"]:
        row |= {"decode_tokens_per_s": None, "fetched_bytes_per_decode_token": None, "tpot_s": [], "requests": []}
    words = words_of(render_comparison(ComparisonResult.model_validate(data)))
    assert "No request decodes" in words
    assert "No cliff" in words
    assert "Nowhere does a policy that hits more often run slower" in words


def test_only_bounds_can_be_shown(quick):
    assert "belady (bound)" in words_of(render_comparison(keep(["belady"])))


def test_cells_are_named_by_what_varies():
    data = plain()
    for part in ("runs", "ranking"):
        data[part] += [row | {"cell": row["cell"] | {"machine": "phone"}} for row in copy.deepcopy(data[part])]
    found = places(ComparisonResult.model_validate(data))
    assert [place.name for place in found] == ["chat on desk", "chat on phone"]
    assert [cell.name for cell in found[1].cells] == ["1 GiB, phone", "2 GiB, phone"]


def test_sizes_stand_in_order_of_what_they_hold():
    assert [cell.gpu_experts for cell in places(make({f"runs.{i}.gpu_slots": 999.0 for i in range(4)}))[0].cells] == [
        "2 GiB",
        "1 GiB",
    ]


@pytest.mark.parametrize(
    ("path", "before", "value", "after"),
    [
        ("question", "Which one & why?", "Or what?", "Or what?"),
        ("ranking.1.mean_tpot_s", "20.1 ms", 0.0777, "77.7 ms"),
        ("ranking.2.slower_than_best", "lfu 1.200×", 1.234, "lfu 1.234×"),
        ("ranking.2.interval", "(1.110–1.320)", (1.187, 1.298), "(1.187–1.298)"),
        ("ranking.0.interval", "(0.750–0.850)", (0.721, 0.832), "(0.721–0.832)"),
        ("runs.1.decode_tokens_per_s", "lru 41.0", 33.3, "lru 33.3"),
        ("runs.2.output_tokens_per_s", "22.0", 98.7, "98.7"),
        ("runs.3.hit_rate_per_lookup", "53.0 %", 0.911, "91.1 %"),
        ("runs.3.late_rate_per_lookup", "3.0 %", 0.0456, "4.6 %"),
        ("runs.3.fetched_bytes_per_decode_token", "103 MB", 2.22e9, "2.22 GB"),
        ("runs.3.fetches", "4,300", 6543, "6,543"),
        ("runs.3.fetches", "policy, 2.15×", 6000, "policy, 3.00×"),
        ("runs.3.fewest_fetches", "policy, 2.15×", 1000, "policy, 4.30×"),
        ("runs.3.limited_by", "policy, 2.15×", "working set", "working set, 2.15×"),
        ("runs.3.bound_by", "PCIe 43.0 %", "flash", "flash 43.0 %"),
        ("runs.3.bound_by_share", "PCIe 43.0 %", 0.888, "PCIe 88.8 %"),
        ("runs.3.prefetch_wasted_bytes", "gate 3.21 GB 3.21 GB", 6_660_000_000, "gate 6.66 GB 3.21 GB"),
        ("cliffs.0.speedup", "3.28×", 4.56, "4.56×"),
        ("paradoxes.0.hit_rates", "77.7 %", (0.555, 0.444), "55.5 %"),
        ("paradoxes.0.decode_tokens_per_s", "23.4", (34.5, 45.6), "45.6"),
        ("paradoxes.0.why", "it came late", "it ate", "it ate"),
        ("moesim_version", "0.0.test", "9.9.9", "9.9.9"),
        ("comparison.policies.lru.caching", "lru caching lru", "sieve", "lru caching sieve"),
        ("base_scenario.model", "model: tiny", "other", "model: other"),
    ],
)
def test_every_number_comes_from_the_comparison(quick, path, before, value, after):
    told, changed = (words_of(render_comparison(result)) for result in (make(), make({path: value})))
    assert before in told
    assert after not in told
    assert after in changed
    assert told.count(before) > changed.count(before)


def test_evidence_is_the_mean_over_runs(quick):
    shares = {"measured": 0.213, "assumed": 0.787}
    assert "measured 61.3 %" in words_of(render_comparison(make()))
    assert "measured 56.3 %" in words_of(render_comparison(make({"runs.0.evidence_shares": shares})))


def test_warnings_stand_before_the_numbers_the_stand_in_first_and_escaped(quick):
    html = render_comparison(make())
    assert html.index("Stand-in.") < html.index("knows the future") < html.index('class="winners"')
    assert "&lt;b&gt;another" in html
    assert "· <b>stand-in</b>" in html
    assert "· <b>stand-in</b>" not in render_comparison(make({"warnings": []}))


def test_not_distinguishable_is_said_in_table_and_figure():
    html = render_comparison(make())
    assert "not distinguishable: lru 1.010× (0.990–1.030)" in words_of(html)
    large = places(make())[0].cells[1]
    told = ranking_of(large)
    assert told.count(">not distinguishable<") == 1
    surely = {"ranking.5.distinguishable": True}
    assert "not distinguishable" not in ranking_of(places(make(surely))[0].cells[1])


def test_who_knows_the_future_is_dashed_and_named_a_bound():
    looks = styles(["belady", "lru", "oracle", "lfu"], ["belady", "oracle"])
    assert [look.dashed for look in looks.values()] == [True, False, True, False]
    assert looks["lru"] == styles(["lru", "lfu"])["lru"]
    assert "belady (bound)" in ranking_of(places(make())[0].cells[0])
    assert "belady (bound)" in words_of(render_comparison(make()))


def test_every_policy_has_a_look_of_its_own():
    looks = styles([f"policy {number}" for number in range(40)])
    assert len({(look.colour, look.marker) for look in looks.values()}) == 40
    assert all(a.colour != b.colour for a, b in itertools.pairwise(looks.values()))
    assert not {look.colour for look in looks.values()} & set(palette.BOUNDS)


def ranking_of(standing):
    looks = styles([row.policy for row in standing.rows], ["belady"])
    data = drawings.Ranking("1 GiB", standing.rows, looks)
    return draw(drawings.ranking, data, height_in=2, alt="")


@pytest.mark.parametrize(
    ("path", "value"),
    [("slower_than_best", 1.25), ("interval", (1.1, 1.4)), ("distinguishable", False)],
)
def test_the_ranking_is_drawn_from_the_comparison(path, value):
    drawn = [ranking_of(places(result)[0].cells[0]) for result in (make(), make(), make({f"ranking.2.{path}": value}))]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("speed", {"runs.1.decode_tokens_per_s": 99.0}),
        ("speed", {"cliffs": []}),
        ("output", {"runs.1.output_tokens_per_s": 99.0}),
        ("output", {"runs.1.ceiling_output_tokens_per_s": 200.0}),
        ("hits", {"runs.1.hit_rate_per_lookup": 0.99}),
        ("fetches", {"runs.1.fetches": 9999}),
        ("fetches", {f"runs.{number}.fewest_fetches": 1234 for number in range(4)}),
        ("wasted", {"runs.3.prefetch_wasted_bytes": 10**9}),
    ],
)
def test_the_curves_are_drawn_from_the_comparison(name, changes):
    before, after = unchanged(), curves_of(make(changes))
    assert before[name] != after[name]
    assert all(before[other] == after[other] for other in before if other != name)


@cache
def unchanged():
    return curves_of(make())


def curves_of(result):
    return comparison.curve_figures(places(result)[0], styles(list(SMALL), ["belady"]), result.cliffs)


def test_the_bound_on_fetches_is_the_lowest_that_any_run_names():
    found = places(make({"runs.1.fewest_fetches": 1500, "runs.2.fewest_fetches": None}))[0]
    assert comparison._fewest(found) == [(80.0, 1500.0), (160.0, 2000.0)]


def test_nothing_is_drawn_where_nothing_is_known(quick):
    unknown = {f"runs.{number}.fetches": None for number in range(8)}
    html = render_comparison(make(unknown | {f"runs.{number}.prefetch_wasted_bytes": 0 for number in range(8)}))
    assert "Belady MIN (dotted)" not in html
    assert "No policy brought in an expert that was never asked for" in html


def test_seeds_are_pooled_and_counted(quick):
    data = plain()
    data["runs"] += [row | {"cell": row["cell"] | {"seed": 1}, "decode_tokens_per_s": 51.0} for row in data["runs"]]
    words = words_of(render_comparison(ComparisonResult.model_validate(data)))
    assert "2 seeds: 16 runs" in words
    assert "5 requests × 2 seeds" in words
    assert "lru 46.0" in words  # the mean of 41 and 51


def test_many_runs_are_cut_and_it_is_said(quick, monkeypatch):
    monkeypatch.setattr(comparison, "MAX_ROWS", 3)
    words = words_of(render_comparison(make()))
    assert "The first 3 of 8 runs; comparison.csv" in words


@pytest.mark.parametrize("ratio", [1.0001, 1.3, 40.0])
def test_any_ratio_can_be_drawn(ratio):
    html = render_comparison(make({"ranking.3.slower_than_best": ratio, "ranking.3.interval": (ratio, 1.1 * ratio)}))
    assert Page(html).open == []


def test_a_cache_of_nothing_can_be_drawn():
    nothing = {f"runs.{number}.gpu_slots": 0.0 for number in range(4)}
    assert Page(render_comparison(make(nothing | {"cliffs": []}))).open == []


def test_report_of_a_folder(quick, tmp_path):
    (tmp_path / "comparison.json").write_text(make().to_json())
    write_report(tmp_path, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == render_comparison(make())
