"""The timeline as Perfetto reads it: whole nanoseconds, slices that nest, arrows inside slices, totals of the run."""

import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from builders import setup_of, trace_of

from moesim.engine import simulate
from moesim.engine.timeline import COMPUTE, LINKS, MEMORY, STEPS, WAITS, Track, chrome_trace

LAYERS, EXPERTS, TOP_K = 3, 8, 3
REQUIRED = {
    "X": {"ts", "dur", "name", "args"},
    "M": {"name", "args"},
    "C": {"ts", "name", "args"},
    "s": {"ts", "name", "cat", "id"},
    "f": {"ts", "name", "cat", "id", "bp"},
    "i": {"ts", "name", "s"},
}


def random_setup(seed):
    """Any policies, tiers and batch; times without ties, so that each wait has one cause."""
    rng = np.random.default_rng(seed)
    tokens = int(rng.integers(4, 16))
    routing = np.argsort(rng.random((tokens, LAYERS, EXPERTS)), axis=2)[:, :, :TOP_K]
    ahead = np.argsort(rng.random((tokens, LAYERS, EXPERTS)), axis=2)[:, :, :TOP_K]
    ahead[:, -1] = -1
    trace = trace_of(
        routing,
        num_experts=EXPERTS,
        prompt=int(rng.integers(0, 4)),
        requests=np.sort(rng.integers(0, 3, tokens)),
        lookahead={1: ahead},
    )
    unified = bool(rng.integers(2))
    prefetch = [("none", {}), ("next-gate", {}), ("oracle", {"horizon": 2})][rng.integers(3)]
    on_miss = [("fetch", {}), ("cpu-compute", {"max_tokens": 2})][0 if unified else rng.integers(2)]
    seconds = {name: float(rng.uniform(0.1, 3)) for name in ("before_s", "expert_s", "copy_s", "read_s", "cpu_s")}
    seconds["cpu_s"] /= 2
    return setup_of(
        trace,
        slots=int(rng.integers(1, 9)),
        host_slots=None if unified or rng.integers(2) else int(rng.integers(1, 8)),
        unified=unified,
        prefetch=prefetch,
        on_miss=on_miss,
        link=["fifo", "demand-first"][rng.integers(2)],
        shared_s=float(rng.integers(2)) * 0.37,
        after_s=0.11,
        workload={"batch": int(rng.integers(1, 3))},
        **seconds,
    )


@pytest.fixture(params=range(40))
def run(request):
    """A random setup and what its run left behind."""
    setup = random_setup(request.param)
    return setup, simulate(setup)


def events_of(setup, outcome, **options):
    trace = json.loads(json.dumps(chrome_trace(setup, outcome, max_steps=None, **options), allow_nan=False))
    return trace["traceEvents"]


def nanoseconds(microseconds):
    """As Perfetto turns the numbers of JSON into whole nanoseconds; what it would cut off is not there."""
    assert microseconds * 1000 == int(microseconds * 1000)
    return int(microseconds * 1000)


def slices(events, track):
    """(start, end, event) in ns, in order of time; of two that start together the longer first."""
    found = [event for event in events if event["ph"] == "X" and Track(event["pid"], event["tid"]) == track]
    rows = [(nanoseconds(event["ts"]), nanoseconds(event["dur"]), event) for event in found]
    return [(start, start + length, event) for start, length, event in sorted(rows, key=lambda row: (row[0], -row[1]))]


def seconds(events, track):
    return sum(end - start for start, end, _ in slices(events, track)) * 1e-9


def test_every_event_has_its_fields(run):
    for event in events_of(*run):
        assert {"ph", "pid", "tid"} <= event.keys()
        assert REQUIRED[event["ph"]] <= event.keys()
        if "ts" in event:
            assert event["ts"] >= 0
            assert event.get("dur", 0) >= 0


def test_slices_of_a_track_touch_but_never_overlap(run):
    events = events_of(*run)
    for track in (COMPUTE, WAITS, *LINKS.values()):
        rows = slices(events, track)
        assert all(row[2]["ts"] + row[2]["dur"] <= after[2]["ts"] for row, after in pairwise(rows))
        assert all(before[1] <= after[0] for before, after in pairwise(rows))
    both = sorted(slices(events, COMPUTE) + slices(events, WAITS), key=lambda row: row[0])
    assert all(before[1] == after[0] for before, after in pairwise(both))


def test_visits_nest_in_their_steps(run):
    setup, outcome = run
    rows = slices(events_of(setup, outcome), STEPS)
    steps = [row for row in rows if "tokens" in row[2]["args"]]
    visits = [row for row in rows if "visit" in row[2]["args"]]
    assert len(steps) == setup.visits.steps.num_steps
    assert len(visits) == setup.visits.num_visits
    for start, end, visit in visits:
        place = visit["args"]["visit"] // LAYERS
        assert steps[place][0] <= start <= end <= steps[place][1]
        assert visit["name"] == f"L{visit['args']['visit'] % LAYERS}"


def test_totals_are_those_of_the_run(run):
    setup, outcome = run
    events = events_of(setup, outcome)
    computed = sum(span.end_s - span.start_s for span in outcome.compute)
    assert seconds(events, COMPUTE) == pytest.approx(computed, abs=1e-4)
    assert seconds(events, WAITS) == pytest.approx(outcome.stall_s.sum(), abs=1e-4)
    for name, spans in outcome.transfers.items():
        busy = sum(span.end_s - span.start_s for span in spans if span.start_s < outcome.step_end_s[-1])
        assert seconds(events, LINKS[name]) == pytest.approx(busy, abs=1e-4)
    visits = [row[2]["args"] for row in slices(events, STEPS) if "visit" in row[2]["args"]]
    told = [sum(visit[label] for visit in visits) for label in ("hit", "late", "miss")]
    assert told == np.bincount(outcome.label, minlength=3).tolist()


def test_arrows_lead_from_the_end_of_a_transfer_to_the_start_of_a_use(run):
    setup, outcome = run
    events = events_of(setup, outcome)
    ends = defaultdict(dict)
    for event in events:
        if event["ph"] in "sf":
            ends[event["id"]][event["ph"]] = event
    for pair in ends.values():
        start, end = pair["s"], pair["f"]
        assert start["name"] == end["name"]
        assert end["bp"] == "e"
        source = enclosing(events, start)
        used = enclosing(events, end)
        assert source[2]["name"] == used[2]["name"] == start["name"]
        assert nanoseconds(start["ts"]) == source[1] - 125
        assert nanoseconds(end["ts"]) == used[0]
        assert source[1] <= used[0]
    last = LINKS["flash" if setup.unified else "pcie"]
    arrived = {(row[1], row[2]["name"]) for row in slices(events, last)}
    into_gpu = [pair for pair in ends.values() if Track(pair["f"]["pid"], pair["f"]["tid"]) == COMPUTE]
    missed = [row for row in slices(events, COMPUTE) if row[2]["args"].get("lookup") in ("miss", "late")]
    assert len(missed) <= len(into_gpu) <= len(arrived)


def enclosing(events, arrow):
    """The slice that is open on an arrow's track at its time."""
    at = nanoseconds(arrow["ts"])
    rows = slices(events, Track(arrow["pid"], arrow["tid"]))
    (found,) = [row for row in rows if row[0] <= at < row[1]]
    return found


def test_memory_counter_is_what_the_gpu_held(run):
    setup, outcome = run
    counters = [event for event in events_of(setup, outcome) if event["ph"] == "C"]
    assert all(Track(event["pid"], event["tid"]) == MEMORY for event in counters)
    assert [event["args"]["bytes"] for event in counters][-1] == outcome.resident_bytes[-1]
    assert max(event["args"]["bytes"] for event in counters) == outcome.resident_bytes.max()


def test_by_hand():
    setup = setup_of(trace_of([[[0]], [[0]]], num_experts=2), slots=1)
    events = events_of(setup, simulate(setup), layers=[7])
    timed = [
        (event["ph"], Track(event["pid"], event["tid"]), event["name"], event["ts"], event.get("dur"))
        for event in events
        if event["ph"] not in "MC" and Track(event["pid"], event["tid"]) != STEPS
    ]
    assert timed == [
        ("X", COMPUTE, "attention + router", 0, 1e6),
        ("X", COMPUTE, "L7 E0", 5e6, 1e6),
        ("X", COMPUTE, "attention + router", 6e6, 1e6),
        ("X", COMPUTE, "L7 E0", 7e6, 1e6),
        ("X", WAITS, "PCIe transfer", 1e6, 4e6),
        ("X", LINKS["pcie"], "L7 E0", 1e6, 4e6),
        ("s", LINKS["pcie"], "L7 E0", 4999999.875, None),
        ("f", COMPUTE, "L7 E0", 5e6, None),
    ]
    copy = next(event for event in events if Track(event["pid"], event["tid"]) == LINKS["pcie"] and event["ph"] == "X")
    assert copy["args"] == {"bytes": 2**20, "kind": "demand", "visit": 0, "step": 0}
    first, second = (row[2]["args"] for row in slices(events, COMPUTE) if row[2]["name"] == "L7 E0")
    assert (first["lookup"], second["lookup"], second["step"]) == ("miss", "hit", 1)


def test_a_cut_is_said():
    setup = setup_of(trace_of([[[0]], [[1]], [[0]]], num_experts=2), slots=1)
    outcome = simulate(setup)
    whole, cut = (chrome_trace(setup, outcome, max_steps=steps) for steps in (3, 2))
    assert not any(event["ph"] == "i" for event in whole["traceEvents"])
    (mark,) = [event for event in cut["traceEvents"] if event["ph"] == "i"]
    assert mark["s"] == "g"
    assert mark["name"] == "cut here: the first 2 of 3 steps are shown"
    assert mark["ts"] == pytest.approx(1e6 * outcome.step_end_s[1])
    assert cut["otherData"]["shown"] == "the first 2 of 3 steps"
    assert max(event["ts"] for event in cut["traceEvents"] if "ts" in event) <= mark["ts"]
