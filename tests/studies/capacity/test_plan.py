"""Capacity plans: the cheapest by brute force, bounds that hold, faults told together, an answer that is complete."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from moesim.errors import ScenarioError
from moesim.optimal.cover import cover
from moesim.replay.serving import serve
from moesim.report.kinds.capacity import render_capacity
from moesim.scenario import load_scenario
from moesim.scenario.serving.build import build_serving
from moesim.studies.capacity.answer import answer
from moesim.studies.capacity.bounds import least_s, serving_bounds
from moesim.studies.capacity.plan import configurations, load_plan
from moesim.studies.capacity.search import Search
from moesim.studies.capacity.survey import Question, survey

BASE = {
    "model": "qwen3-30b-a3b",
    "trace": {"file": "none", "synthetic": {"layers": 1, "requests": 4, "prompt": 16, "output": 32}},
    "hardware": {"node": "hgx-h100-8"},
    "serving": {"max_num_batched_tokens": 512},
    "arrivals": {"rate": "12 /s", "requests": 80, "prompt": 300, "output": 40},
}
PLAN = {
    "question": "What is the cheapest?",
    "scenario": "base.yaml",
    "loads": {"chat": {"slo": {"ttft": "400 ms", "tpot": "25 ms", "share": 0.9}}},
    "choices": {
        "machine": {
            "H100": {"settings": {"hardware": {"node": "hgx-h100-8"}}},
            "H200": {"settings": {"hardware": {"node": "hgx-h200-8"}}, "usd_per_gpu_hour": 3.7},
            "T4": {"settings": {"hardware": {"node": "server-t4"}}, "usd_per_gpu_hour": 0.1},
        },
        "places": {"4": {"settings": {"serving.max_num_seqs": 4}}, "24": {"settings": {"serving.max_num_seqs": 24}}},
        "step": {
            "64": {"settings": {"serving.max_num_batched_tokens": 64}},
            "512": {"settings": {"serving.max_num_batched_tokens": 512}},
        },
    },
    "most_replicas": 3,
}


class Inline:
    """Everything in this process."""

    def outcomes(self, function, items):
        """See Executor."""
        yield from ((index, function(item)) for index, item in enumerate(items))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    return tmp_path


def best_of(found):
    return min((row.usd_per_hour for row in found.rows if row.figures and row.figures.met), default=None)


def excluded_by_bounds(loaded, folder):
    """The fewest replicas that bounds allow each configuration; more than there can be where none will do."""
    search = Search(loaded, "chat", folder / "runs", Inline())
    found = {}
    for configuration in configurations(loaded.plan):
        told = survey(Question(search.base, search.settings(configuration, 1), None, 0.9))
        names = tuple(name for _, name in configuration.options)
        found[names] = told.replicas if not told.cut else loaded.plan.most_replicas + 1
    return found


@pytest.mark.parametrize(
    ("slo", "rate", "excluded"),
    [
        ({"ttft": "400 ms", "tpot": "25 ms", "share": 0.9}, "12 /s", 0),
        ({"latency": "700 ms"}, "12 /s", 0),
        ({"ttft": "19 ms", "tpot": "25 ms", "share": 0.3}, "3 /s", 4 * 3),  # no prompt in steps of 64 is as quick
        ({"latency": "1 s", "share": 0.8}, "100 /s", 4),  # one replica of some can't keep up
    ],
)
def test_bounds_and_order_never_cut_the_cheapest(folder, slo, rate, excluded):
    base = BASE | {"arrivals": BASE["arrivals"] | {"rate": rate}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN | {"loads": {"chat": {"slo": slo}}}))
    loaded = load_plan(folder / "plan.yaml")
    quick = Search(loaded, "chat", folder / "runs", Inline()).run()
    everything = replace(loaded, plan=loaded.plan.model_copy(update={"explore": 1e9}))
    brute = Search(everything, "chat", folder / "runs", Inline(), prune=False).run()
    assert best_of(quick) == best_of(brute)
    assert quick.proven
    assert len(quick.simulated) <= len(brute.simulated) == 2 * 4 * 3  # H100 and H200; a T4 holds no replica
    bounded = excluded_by_bounds(loaded, folder)
    failed = [row for row in brute.rows if row.figures and row.replicas < bounded[tuple(row.options.values())]]
    assert len(failed) == excluded
    assert not any(row.figures.met for row in failed)
    cut = {tuple(row.options.values()) for row in quick.rows if row.cut}
    met = {tuple(row.options.values()) for row in brute.rows if row.figures and row.figures.met}
    assert not cut & met


def test_bounds_hold_in_simulations():
    rng = np.random.default_rng(0)
    for _ in range(6):
        wanted = {**BASE, "serving": {"slo": {"ttft": "1 s", "tpot": "30 ms", "share": 0.5}}}
        wanted["serving"]["max_num_batched_tokens"] = int(rng.integers(32, 1024))
        wanted["serving"]["max_num_seqs"] = int(rng.integers(2, 32))
        if rng.random() < 0.5:
            wanted["serving"]["parallel"] = {"tp": 2, "ep": 2}
        wanted["arrivals"] = {**BASE["arrivals"], "rate": f"{rng.uniform(1, 30):.3f} /s"}
        built = build_serving(load_scenario(wanted))
        token_s, step_s = least_s(built.setup.costs, built.setup.routing)
        batches = []
        outcome = serve(built.setup, batches.append)
        ended = {name: np.concatenate([getattr(b, name) for b in batches]) for name in vars(batches[0])}
        ttft, latency = ended["first_token_s"] - ended["arrival_s"], ended["last_token_s"] - ended["arrival_s"]
        assert (ttft >= np.maximum(token_s * ended["prompt"], step_s) * (1 - 1e-9)).all()
        assert (latency - ttft >= step_s * (ended["output"] - 1) * (1 - 1e-9)).all()
        assert outcome.busy_s.sum() >= token_s * float((ended["prompt"] + ended["output"] - 1).sum()) * (1 - 1e-9)
        good = ((ttft <= 1) & ((latency - ttft) / (ended["output"] - 1) <= 0.03)).mean()
        assert good <= serving_bounds(built).good_share + 1e-12


def test_the_answer_is_complete_and_the_same_again(folder):
    loaded = load_plan(folder / "plan.yaml")
    result = answer(loaded, folder / "runs", Inline())
    (advice,) = result.recommendations
    assert advice.found
    assert advice.proven
    assert advice.candidate.figures.met
    assert advice.runner_up.options != advice.candidate.options
    assert advice.runner_up.usd_per_hour >= advice.candidate.usd_per_hour
    changed = {row.change.split(" (")[0] for row in advice.sensitivity}
    assert {"load × 0.7", "load × 1.3", "prompts twice as long", "routing uniform", "its prices 30 % up"} <= changed
    assert advice.holds_load >= 1
    assert 0.1 <= advice.error_bar <= 0.4
    assert advice.measure_first
    assert sum(advice.evidence_shares.values()) == pytest.approx(1)
    assert result.labels == ["synthetic", "stand-in"]
    assert any("hgx" not in price and "USD per GPU and hour" in price for price in result.prices)
    assert {row.options["machine"] for row in result.candidates if row.cut} == {"T4"}
    assert answer(loaded, folder / "runs", Inline()).to_json() == result.to_json()
    assert len(result.to_csv().splitlines()) == 1 + len(result.candidates)
    page = render_capacity(result)
    for told in ("What is the cheapest?", "runner-up", "Measure before buying", "the weights don&#39;t fit"):
        assert told in page
    if result.mix is not None:
        assert result.mix.usd_per_hour <= advice.candidate.usd_per_hour * (1 + 1e-9) or not result.mix.met


def test_no_answer_says_so_and_gives_the_nearest(folder):
    impossible = PLAN | {"loads": {"chat": {"slo": {"ttft": "20 ms", "share": 1.0}}}, "most_replicas": 1}
    (folder / "plan.yaml").write_text(yaml.safe_dump(impossible))
    result = answer(load_plan(folder / "plan.yaml"), folder / "runs", Inline())
    if result.recommendations:
        (advice,) = result.recommendations
        assert not advice.found
        best = max(row.figures.good_share for row in result.candidates if row.figures)
        assert advice.candidate.figures.good_share == best
        assert "Nothing in the plan keeps to the limits" in render_capacity(result)
    assert result.warnings


def test_every_fault_of_a_plan_is_told_at_once(folder):
    wrong = json.loads(json.dumps(PLAN))
    wrong["choices"]["machine"]["H100"]["settings"] = {"hardware": {"nod": "x"}}
    wrong["choices"]["places"]["4"]["settings"] = {"serving.max_num_seqs": "four"}
    wrong["choices"]["again"] = {"a": {"settings": {"serving.max_num_seqs": 9}}}
    wrong["loads"]["chat"]["settings"] = {"serving.max_num_batched_tokens": 7}
    (folder / "plan.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ScenarioError) as error:
        load_plan(folder / "plan.yaml")
    text = str(error.value)
    for told in (
        "did you mean 'node'",
        "'four'",
        "is set by 'again' as well",
        "is chosen by the plan and set by this load",
    ):
        assert told in text
    assert text.count("plan.yaml:") >= 4


def test_faults_of_keys_settings_and_the_base_scenario_are_told_together(folder):
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE | {"seed": -1}))
    wrong = PLAN | {"years": 0, "budget": 3, "loads": {"chat": {"slo": {}}, "day": {"slo": {"ttft": 1, "share": 2}}}}
    (folder / "plan.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ScenarioError) as error:
        load_plan(folder / "plan.yaml")
    places = [fault.place.rpartition(": ")[2] for fault in error.value.faults]
    assert sorted(places) == sorted(
        ["seed", "years", "budget", "loads.chat.slo", "loads.day.slo.ttft", "loads.day.slo.share"]
    )


def test_what_has_no_price_or_is_too_many_is_not_the_cheapest(folder):
    machines = {
        "PRO 6000": {"settings": {"hardware": {"node": "server-rtx-pro-6000"}}},
        "H100": {"settings": {"hardware": {"node": "hgx-h100-8"}}},
        "eight": {"settings": {"hardware": {"node": "hgx-h100-8"}, "serving.parallel": {"tp": 8}}},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN | {"choices": {"machine": machines}, "most_gpus": 4}))
    found = Search(load_plan(folder / "plan.yaml"), "chat", folder / "runs", Inline()).run()
    cut = {row.options["machine"]: row.cut for row in found.rows if row.cut}
    assert "no rent is known" in cut["PRO 6000"]
    assert "of 8 GPUs, which is more than can be had" in cut["eight"]
    assert {row.options["machine"] for row in found.rows if not row.cut} == {"H100"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loads": {"chat": {"slo": {}}}}, "limits nothing"),
        ({"loads": {}}, "at least 1"),
        ({"scenario": "absent.yaml"}, "no such file"),
        ({"scenario": "plan.yaml"}, "names this plan itself"),
        ({"choices": {"a": {"b": {"settings": {"hardware.gpu": "rtx-9090"}}}}}, "did you mean 'rtx-"),
        ({"choices": {"a": {"b": {"settings": {"model": "qwen4"}}}}}, "choices.a.b.settings: model: unknown name"),
        (
            {
                "choices": {
                    "a": {"b": {"settings": {"serving.parallel.tp": 2}}},
                    "c": {"d": {"settings": {"serving": {}}}},
                }
            },
            "is set by 'a' as well",
        ),
        ({"choices": {"a": {}}}, "at least 1"),
        ({"budget": 3}, "unknown key"),
        ({"choices": {"a": {"b": {"usd": 5}}}}, "a quantity needs a unit"),
    ],
)
def test_a_wrong_plan_is_refused(folder, changes, told):
    from moesim.errors import MoesimError

    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN | changes))
    with pytest.raises(MoesimError, match=told):
        load_plan(folder / "plan.yaml")


def test_shipped_plans_are_sound():
    plans = Path(__file__).parents[3] / "scenarios" / "capacity"
    names = ("desktop-upgrade", "qwen3-30b-10-per-second", "deepseek-v3-100-users")
    for name in names:
        assert load_plan(plans / f"{name}.yaml").plan.question


def test_covers_are_the_cheapest_by_enumeration():
    rng = np.random.default_rng(1)
    for _ in range(10):
        cost = rng.uniform(1, 5, 3)
        capacity = rng.uniform(0.15, 0.8, (3, 2)) * (rng.random((3, 2)) < 0.8)
        found = cover(cost.tolist(), capacity)
        best = 0.0
        for load in range(2):
            counts = np.stack(np.meshgrid(*[np.arange(8)] * 3), axis=-1).reshape(-1, 3)
            enough = counts @ capacity[:, load] >= 1 - 1e-9
            best += (counts[enough] @ cost).min() if enough.any() else np.inf
        if np.isinf(best):
            assert found.count is None
        else:
            assert found.answer.status == "optimal"
            assert found.answer.value == pytest.approx(best)
    assert cover([1.0], np.array([[0.5]]), [1], [([0], 1)]).count is None  # two are needed, one can be had
