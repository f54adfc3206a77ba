"""``moesim replay``: counts on the command line."""

import json

import pytest

SIZE = ("--expert-bytes", "1MB")


def counted(moesim, *arguments):
    code, out, err = moesim("replay", "trace.npz", *SIZE, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("rule", ["reserve", "evict_after", "sequential"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_counts_add_up(moesim, rule, scope):
    found = counted(moesim, "--capacity", "8MB", "--rule", rule, "--scope", scope)
    assert found["activations"] == 24 * 2 * 2
    assert found["hits"] + found["misses"] == found["lookups"]
    assert found["hit_rate_per_lookup"] == found["hits"] / found["lookups"]
    assert found["fetched_bytes"] == found["misses"] * 10**6
    for key in ("activations", "lookups", "hits", "misses", "fetched_bytes"):
        assert sum(row[key] for row in found["per_layer"]) == found[key]


def test_everything_fits_so_each_expert_is_fetched_once(moesim):
    found = counted(moesim, "--capacity", "16MB")
    assert found["misses"] <= 16
    assert counted(moesim, "--capacity", "1000PB")["misses"] == found["misses"]


def test_decode_alone_counts_less(moesim):
    both, decode = (counted(moesim, "--capacity", "6MB", "--phase", phase) for phase in ("all", "decode"))
    assert decode["activations"] == 15 * 2 * 2 < both["activations"]


def test_a_curve_has_a_point_for_each_size(moesim):
    found = counted(moesim, "--capacities", "4MB,8MB,16MB", "--policy", "belady")
    assert found["policy"] == "belady"
    assert [point["capacity_bytes"] for point in found["curve"]] == [4 * 10**6, 8 * 10**6, 16 * 10**6]
    rates = [point["hit_rate_per_lookup"] for point in found["curve"]]
    assert rates == sorted(rates)
    assert found["curve"][1] == counted(moesim, "--capacity", "8MB", "--policy", "belady")


def test_training_requests_are_not_counted(moesim):
    found = counted(moesim, "--capacity", "8MB", "--policy", "static", "--train-fraction", "0.34")
    assert found["activations"] == 16 * 2 * 2


def test_the_table_says_what_the_counts_rest_on(moesim):
    code, out, err = moesim("replay", "trace.npz", "--capacity", "8MB", *SIZE, "--policy", "belady")
    assert (code, err) == (0, "")
    assert "experts of 1000000 bytes, as given" in out
    assert "the trace is synthetic" in out
    assert "knows the future" in out


def test_a_plot_is_written(moesim):
    code, _, _ = moesim("replay", "trace.npz", *SIZE, "--capacities", "4MB,8MB", "--plot", "new/curve.svg")
    assert code == 0
    assert "<svg" in (moesim.folder / "new" / "curve.svg").read_text()


def test_all_lru_sizes_in_one_pass(moesim):
    curve = counted(moesim, "--all-sizes")["curve"]
    sizes = [point["capacity_bytes"] // 10**6 for point in curve]
    assert sizes == list(range(sizes[0], 17))
    for point in (curve[0], curve[3], curve[-1]):
        one = counted(moesim, "--capacity", f"{point['capacity_bytes']}B")
        assert point == {key: one[key] for key in point}


@pytest.mark.parametrize(
    ("arguments", "place"),
    [(("--policy", "lfu"), "lru only"), (("--capacity", "8MB"), "already says which sizes")],
)
def test_all_sizes_are_those_of_lru(moesim, arguments, place):
    code, out, err = moesim("replay", "trace.npz", *SIZE, "--all-sizes", *arguments)
    assert (code, out) == (2, "")
    assert place in err


def test_a_long_trace_is_streamed_and_counts_alike(moesim, monkeypatch):
    options = ("--capacity", "8MB", "--policy", "static", "--train-fraction", "0.34")
    whole = counted(moesim, *options)
    monkeypatch.setattr("moesim.studies.replay.STREAM_FROM", 0)
    monkeypatch.setattr("moesim.studies.replay.count", None)
    assert counted(moesim, *options) == whole


@pytest.mark.parametrize("arguments", [("--policy", "belady"), ("--batch", "2")])
def test_what_memory_cannot_hold_is_refused_before_it_is_tried(moesim, monkeypatch, arguments):
    monkeypatch.setattr("moesim.studies.replay.memory_bytes", lambda: 1000)
    code, out, err = moesim("replay", "trace.npz", *SIZE, "--capacity", "8MB", *arguments)
    assert (code, out) == (2, "")
    assert " ".join(arguments) in err
    assert "in memory: about 11.5 kB, and there are 1.00 kB" in err
