import json

import pytest

from moesim.errors import TraceError
from moesim.traces.importers.gate_jsonl import import_gate_jsonl

OPTIONS = {"num_experts": 8, "prompt_tokens": (1,)}


def line(layer, token, ids, weights=None):
    said = {"layer_idx": layer, "token_idx": token, "selected_ids": ids}
    return json.dumps(said if weights is None else said | {"gate_weights": weights})


HAND = [
    line(3, 0, [1, 2], [0.75, 0.25]),
    line(4, 0, [7, 0], [0.5, 0.5]),
    line(4, 1, [5, 6], [0.625, 0.375]),
    line(3, 1, [2, 4], [1e-05, 1]),
]


@pytest.fixture
def write(tmp_path):
    """A function that writes lines to a file."""

    def write(lines):
        (tmp_path / "gates.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path / "gates.jsonl"

    return write


def test_by_hand(write):
    trace = import_gate_jsonl(write(HAND), **OPTIONS, model="m")
    assert trace.experts.tolist() == [[[1, 2], [7, 0]], [[2, 4], [5, 6]]]
    assert trace.weights[:, 0].tolist() == [[0.75, 0.25], [pytest.approx(1e-5, rel=1e-2), 1]]
    assert (trace.card.moe_layer_indices, trace.card.model, trace.phase.tolist()) == ([3, 4], "m", [0, 1])


def test_lines_written_differently_say_the_same(write):
    keys = ("token_idx", "gate_weights", "layer_idx", "selected_ids")
    other = [json.dumps({key: json.loads(one)[key] for key in keys}, separators=(",", ":")) for one in HAND]
    expected = import_gate_jsonl(write(HAND), **OPTIONS).sha256
    for lines in (other, other[:2] + HAND[2:], HAND[:1] + other[1:], HAND[::-1]):
        assert import_gate_jsonl(write(lines), **OPTIONS).sha256 == expected


def test_pieces_join_anywhere(write, monkeypatch):
    expected = import_gate_jsonl(write(HAND), **OPTIONS).sha256
    for size in (1, 100, 200):
        monkeypatch.setattr("moesim.traces.importers._number_lines.PIECE_BYTES", size)
        assert import_gate_jsonl(write(HAND), **OPTIONS).sha256 == expected


def test_fewer_experts_here_and_there(write):
    trace = import_gate_jsonl(write([line(0, 0, [1]), line(0, 1, [2, 3]), line(0, 2, [])]), **OPTIONS)
    assert trace.experts[:, 0].tolist() == [[1, 255], [2, 3], [255, 255]]
    assert trace.recorded[:, 0].tolist() == [True, True, False]
    assert trace.weights is None


def test_numbering_may_start_anywhere(write):
    trace = import_gate_jsonl(write([line(0, 7, [1]), line(0, 8, [2])]), **OPTIONS)
    assert (trace.experts[:, 0, 0].tolist(), trace.position.tolist()) == ([1, 2], [0, 1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must have just the keys"),
        ('{"layer_idx": 0, "token_idx": 2}', "must have just the keys"),
        ('{"layer_idx": 0, "token_idx": 2, "selected_ids": [1], "extra": 1}', "must have just the keys"),
        (line(-1, 2, [1, 2], [0, 1]), "layer_idx must be whole numbers"),
        (line(0, 2.5, [1, 2], [0, 1]), "token_idx must be whole numbers"),
        (line(0, True, [1, 2], [0, 1]), "token_idx must be whole numbers"),
        (line(0, 2, 5, [0, 1]), "selected_ids must be whole numbers"),
        (line(0, 2, [1, "2"], [0, 1]), "selected_ids must be whole numbers"),
        (line(0, 2, [1, 2], "x"), "gate_weights must be numbers"),
        (line(0, 2, [1, 2], [1]), "gate_weights must be as many"),
        (line(3, 0, [1, 2], [0, 1]), "repeats the layer_idx and token_idx"),
        (line(0, 2, [1, 2]), "gate_weights stands in some lines only"),
    ],
)
def test_a_broken_line_is_named(write, bad, message):
    path = write([*HAND, bad, line(3, 3, [0, 1], [0, 1])])
    with pytest.raises(TraceError, match=message) as error:
        import_gate_jsonl(path, **OPTIONS)
    assert error.value.faults[0].place == f"{path}:5"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(0, 0, [1]), line(0, 2, [2])], "token_idx skips 1, between 0 and 2"),
        ([line(0, 0, [9])], "9 is no expert"),
        ([line(0, 0, [1, 1])], "expert 1 stands twice"),
        ([line(0, 0, [1], [float("nan")])], "nan is no gate weight"),
    ],
)
def test_routing_that_makes_no_sense(write, lines, message):
    with pytest.raises(TraceError, match=message):
        import_gate_jsonl(write(lines), **OPTIONS)


def test_nothing_in_it(tmp_path):
    (tmp_path / "gates.jsonl").touch()
    with pytest.raises(TraceError, match="holds no routing"):
        import_gate_jsonl(tmp_path / "gates.jsonl", **OPTIONS)
