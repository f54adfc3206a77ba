"""``moesim optimum``: what it finds, what it writes, and that ``moesim run`` replays it."""

import json

import pytest

BRIEF = ("--no-report", "--no-study", "--json")


def found(moesim, *arguments):
    code, out, err = moesim("optimum", "scenario.yaml", "--json", "--out", "best", *arguments)
    assert code == 0, err
    return {finding["problem"]: finding for finding in json.loads(out)["findings"]}


def test_schedules_are_replayed_as_they_were_found(moesim):
    findings = found(moesim)
    fewest, stall = findings["caching"], findings["prefetch"]
    assert fewest["status"] == "optimal"
    assert fewest["value"] == fewest["bound"] <= fewest["ours"]
    assert stall["bound"] <= stall["value"] <= stall["ours"]
    for finding, name in ((fewest, "fewest-fetches.npz"), (stall, "least-stall.npz")):
        assert finding["saved_as"] == name
        settings = ("--set", "policies.caching=scheduled", "--set", f"policies.schedule=best/{name}")
        code, out, _ = moesim("run", "scenario.yaml", *BRIEF, *settings)
        assert code == 0
        bounds = {bound["unit"]: bound for bound in json.loads(out)["bounds"]}
        if finding is fewest:
            assert bounds["fetches"]["ours"] == finding["value"]
        else:
            assert bounds["s of stall"]["ours"] == pytest.approx(finding["value"])


def test_a_run_shows_the_same_bound_on_fetches(moesim):
    _, out, _ = moesim("run", "scenario.yaml", *BRIEF)
    bounds = {bound["unit"]: bound for bound in json.loads(out)["bounds"]}
    findings = found(moesim)
    assert bounds["fetches"]["value"] == findings["caching"]["bound"]
    assert bounds["s of stall"]["value"] <= findings["prefetch"]["bound"] + 1e-9


def test_text_names_status_bound_and_distance(moesim):
    code, out, err = moesim("optimum", "scenario.yaml", "--problem", "caching", "--out", "best")
    assert code == 0
    assert "fetches (optimal)" in out
    assert "x the least" in out
    assert out.endswith("wrote best/optimum.json, best/fewest-fetches.npz\n")
    assert err.startswith("took ")


@pytest.mark.parametrize(
    "settings", [("policies.scope=layer", "precision.experts=int4"), ("policies.rule=evict_after",)]
)
def test_other_rules(moesim, settings):
    overrides = [part for setting in settings for part in ("--set", setting)]
    findings = found(moesim, "--problem", "caching", *overrides)
    assert findings["caching"]["bound"] <= findings["caching"]["ours"]


def test_a_run_without_a_bound_says_who_has_one(moesim):
    code, out, _ = moesim("run", "scenario.yaml", *BRIEF[:2], "--set", "policies.on_miss=cpu-compute")
    assert code == 0
    assert "bound: none in passing" in out
    assert "moesim optimum" in out


def test_misses_on_the_cpu(moesim):
    findings = found(moesim, "--problem", "caching", "--set", "policies.on_miss=cpu-compute")
    assert "CPU" in findings["caching"]["question"]
    assert findings["caching"]["status"] == "optimal"
    assert findings["caching"]["value"] <= findings["caching"]["ours"] * (1 + 1e-9)


def test_what_does_not_apply_is_refused(moesim):
    assert "unknown problem 'cachin'" in moesim.refused("optimum", "scenario.yaml", "--problem", "cachin")
    assert "did you mean 'caching'" in moesim.refused("optimum", "scenario.yaml", "--problem", "cachin")
    assert "--time-limit" in moesim.refused("optimum", "scenario.yaml", "--time-limit", "soon")
    refusal = ("--problem", "prefetch", "--set", "policies.on_miss=cpu-compute")
    assert "on_miss" in moesim.refused("optimum", "scenario.yaml", *refusal)


def test_a_schedule_that_does_not_belong_is_refused(moesim):
    found(moesim, "--problem", "caching")
    replay = ("--set", "policies.caching=scheduled", "--set", "policies.schedule=best/fewest-fetches.npz")
    other = ("--set", "workload.requests=1")
    assert "another workload" in moesim.refused("run", "scenario.yaml", *replay, *other)
    assert "bytes" in moesim.refused("run", "scenario.yaml", *replay, "--set", "memory.gpu_experts=5 GiB")
    assert "none is named" in moesim.refused("run", "scenario.yaml", "--set", "policies.caching=scheduled")
    lone = ("--set", "policies.schedule=best/fewest-fetches.npz")
    assert "replays no schedule" in moesim.refused("run", "scenario.yaml", *lone)
    assert "no such file" in moesim.refused("run", "scenario.yaml", *replay[:2], "--set", "policies.schedule=x.npz")


def test_tiers_write_a_plan_of_precisions_that_a_run_replays(moesim):
    finding = found(moesim, "--problem", "tiers", "--time-limit", "5 s")["tiers"]
    assert finding["bound"] <= finding["value"] <= finding["ours"] * (1 + 1e-9)
    assert finding["status"] in ("optimal", "feasible with gap")
    table = (moesim.folder / "best" / "bit-widths.csv").read_text().splitlines()
    assert table[0] == "layer,expert,precision"
    assert len(table) == 1 + 32 * 8
    plan = ("--set", "policies.precision={name: plan, file: best/bit-widths.csv}")
    code, _, err = moesim("run", "scenario.yaml", *BRIEF, *plan)
    assert code == 0, err
    assert "unknown precision" in moesim.refused("optimum", "scenario.yaml", "--problem", "tiers", "--quality", "int5")


def test_a_table_of_errors_is_read(moesim):
    rows = [f"{layer},{expert},0,0,{expert + 1},{2 * expert + 2},9" for layer in range(32) for expert in range(8)]
    moesim.write("errors.csv", "layer,expert,bf16,int8,int4,int3,int2\n" + "\n".join(rows))
    finding = found(moesim, "--problem", "tiers", "--errors", "errors.csv", "--time-limit", "1 s")["tiers"]
    assert finding["figures"]["error proxy"] == "errors.csv"
    moesim.write("short.csv", "layer,expert,bf16,int8,int4,int3,int2\n0,0,0,0,1,2,9")
    assert "256" in moesim.refused("optimum", "scenario.yaml", "--problem", "tiers", "--errors", "short.csv")


def test_hybrid_stands_beside_the_published_rules(moesim):
    finding = found(moesim, "--problem", "hybrid", "--set", "policies.on_miss=fiddler")["hybrid"]
    assert finding["bound"] <= finding["value"]
    rules = [finding["figures"][f"{name} (s)"] for name in ("fiddler", "fiddler's code (sum)", "hybrimoe")]
    assert min(rules) >= finding["value"] * (1 - 1e-9)
    assert finding["ours"] in [pytest.approx(rule) for rule in rules]  # the engine decided as one of them


PARALLEL = """\
model: mixtral-8x7b
trace: {file: trace.npz, stand_in: true}
hardware: {cluster: hgx-h100-x1}
policies: {placement: contiguous}
workload: {train_fraction: 0.3}
parallel: {gpus: 4, batch: {tokens_per_gpu: 4, steps: 2, context: 64}, study: false}
"""


def test_placements_are_written_and_replayed(moesim):
    moesim.write("scenario.yaml", PARALLEL)
    code, out, err = moesim("optimum", "scenario.yaml", "--json", "--out", "best", "--time-limit", "6 s")
    assert code == 0, err
    findings = json.loads(out)["findings"]
    names = {finding["saved_as"] for finding in findings}
    assert names == {"placement-balance.json", "placement-crossings.json", "placement-reach.json"}
    for finding in findings:
        assert finding["bound"] <= finding["value"] <= finding["ours"]
        replay = ("--set", f"policies.placement={{name: fixed, file: best/{finding['saved_as']}}}")
        code, _, err = moesim("run", "scenario.yaml", "--no-report", "--no-study", *replay)
        assert code == 0, err
    assert "does not apply" in moesim.refused("optimum", "scenario.yaml", "--problem", "caching")
    drawn = ("trace.file=none", "trace.stand_in=false", "trace.synthetic={requests: 40, prompt: 0, output: 8}")
    overrides = [part for setting in drawn for part in ("--set", setting)]
    code, out, err = moesim("optimum", "scenario.yaml", "--json", "--out", "best", "--time-limit", "1 s", *overrides)
    assert code == 0, err
    copies = ("--set", "parallel.redundant_experts=4")
    code, out, err = moesim("optimum", "scenario.yaml", "--json", "--out", "best", *copies)
    assert code == 0, err
    (finding,) = json.loads(out)["findings"]
    assert "copies" in finding["question"]
    assert finding["figures"]["with the best split of tokens over these copies"] <= finding["value"] + 1e-6
