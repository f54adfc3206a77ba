import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.traces import TraceCard, check


def test_shape_and_requests(full_trace):
    assert (full_trace.num_tokens, full_trace.num_layers, full_trace.top_k, full_trace.num_experts) == (3, 2, 2, 4)
    assert full_trace.sentinel == 255
    assert full_trace.request_ids.tolist() == [7, 3]
    assert (full_trace.rows_of(7), full_trace.rows_of(3)) == (slice(0, 2), slice(2, 3))
    with pytest.raises(TraceError, match="has no request 5"):
        full_trace.rows_of(5)
    assert repr(full_trace) == "<RoutingTrace 'tiny', captured: 3 tokens x 2 layers x top-2 of 4>"


@pytest.mark.parametrize(("num_experts", "dtype", "sentinel"), [(255, np.uint8, 255), (256, np.uint16, 65535)])
def test_expert_type_by_number_of_experts(make_trace, num_experts, dtype, sentinel):
    trace = check(make_trace([[[num_experts - 1, 0]]], num_experts))
    assert (trace.experts.dtype, trace.sentinel) == (dtype, sentinel)


def test_arrays_are_read_only(full_trace):
    for array in full_trace.arrays().values():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_checksum_sees_every_array_and_not_the_card(full_trace, make_trace):
    columns = full_trace.columns() | {"lookahead": dict(full_trace.lookahead)}
    experts = columns.pop("experts")

    def digest(experts=experts, **changed):
        return make_trace(experts, card={"name": "other", "domains": [{"name": "x"}]}, **(columns | changed)).sha256

    assert digest() == full_trace.sha256
    rolled = {name: np.roll(array, 1, axis=0) for name, array in columns.items() if name != "lookahead"}
    changed = [digest(experts=experts[..., ::-1]), *(digest(**{name: array}) for name, array in rolled.items())]
    changed.append(digest(lookahead={2: full_trace.lookahead[1]}))
    changed.append(digest(lookahead={}))
    assert len({full_trace.sha256, *changed}) == len(changed) + 1


@pytest.mark.parametrize(
    ("column", "array", "message"),
    [
        ("request", np.zeros(2, np.int64), "request: must be int32 \\(got int64\\)"),
        ("position", np.zeros(3, np.int32), "position: must have the shape \\[2\\] \\(got \\[3\\]\\)"),
        ("phase", np.zeros(2, np.int8), "phase: must be uint8"),
        ("weights", np.zeros((2, 1, 1), np.float32), "weights: must be float16"),
        ("recorded", np.zeros((2, 1), np.uint8), "recorded: must be bool"),
        ("lookahead", {1: np.zeros((2, 1, 1), np.uint16)}, "lookahead_1: must be uint8"),
        ("lookahead", {0: np.zeros((2, 1, 1), np.uint8)}, "lookahead_0: must look at least one layer ahead"),
    ],
)
def test_wrong_shapes_and_types_are_refused(make_trace, column, array, message):
    with pytest.raises(TraceError, match=message):
        make_trace([[[0]], [[1]]], **{column: array})


def test_no_tokens_and_a_card_of_another_shape(make_trace):
    with pytest.raises(TraceError, match="holds no tokens"):
        make_trace(np.zeros((0, 1, 1)))
    with pytest.raises(TraceError, match="has 1 layers x top-1, the card says 2 x top-1"):
        make_trace([[[0]]], card={"moe_layer_indices": [1, 2]})
    with pytest.raises(TraceError, match="experts: must be uint16"):
        make_trace([[[0]]], card={"num_experts": 300})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experts": [[[4, 0]], [[1, 2]]]},
            "experts\\[0, 0, 0\\]: 4 is no expert: ids run from 0 to 3, 255 is none",
        ),
        ({"experts": [[[0, 1]], [[2, 2]]]}, "experts\\[1, 0, 1\\]: expert 2 stands twice"),
        ({"weights": np.array([[[0.5, np.nan]], [[0, 0]]], np.float16)}, "weights\\[0, 0, 1\\]: nan is no gate weight"),
        ({"weights": np.array([[[1, 0]], [[-1, 0]]], np.float16)}, "weights\\[1, 0, 0\\]: -1.0 is no gate weight"),
        ({"weights": np.array([[[np.inf, 0]], [[0, 0]]], np.float16)}, "weights\\[0, 0, 0\\]: inf"),
        (
            {"experts": [[[0, 255]], [[1, 2]]], "weights": np.ones((2, 1, 2), np.float16)},
            "weights\\[0, 0, 1\\]: is 1.0 where there is no expert",
        ),
        ({"recorded": np.array([[True], [False]])}, "experts\\[1, 0, 0\\]: expert 0 stands where the source recorded"),
        (
            {"lookahead": {1: np.array([[[0, 1]], [[255, 255]]], np.uint8)}},
            "lookahead_1\\[0, 0, 0\\]: predicts 0 for a layer",
        ),
        ({"lookahead": {1: np.array([[[9, 1]], [[255, 255]]], np.uint8)}}, "lookahead_1\\[0, 0, 0\\]: 9 is no expert"),
        ({"phase": np.array([0, 2], np.uint8)}, "phase\\[1\\]: 2 is no phase"),
        ({"domain": np.array([0, -1], np.int16)}, "domain\\[0\\]: 0 is no domain: the card lists 0"),
        ({"position": np.array([3, 3], np.int32)}, "position\\[1\\]: 3 does not ascend"),
        ({"position": np.array([-1, 3], np.int32)}, "position\\[0\\]: -1 is negative"),
        ({"step": np.array([0, -5], np.int32)}, "step\\[1\\]: -5 is negative"),
    ],
)
def test_wrong_content_is_told_with_its_place(make_trace, changes, message):
    experts = changes.pop("experts", [[[0, 1]], [[0, 2]]])
    with pytest.raises(TraceError, match=message):
        check(make_trace(experts, **changes))


def test_rows_of_a_request_stand_together(make_trace):
    trace = make_trace([[[0]]] * 3, request=np.array([1, 2, 1], np.int32))
    with pytest.raises(TraceError, match="rows of request 1 don't stand together"):
        check(trace, "file")


def test_all_faults_are_told_at_once(make_trace):
    trace = make_trace([[[4, 4]], [[0, 0]]], phase=np.array([3, 3], np.uint8))
    with pytest.raises(TraceError) as error:
        check(trace, "x.npz")
    assert [fault.place for fault in error.value.faults] == [
        "x.npz: experts[0, 0, 0]",
        "x.npz: experts[0, 0, 1]",
        "x.npz: phase[0]",
    ]


def test_checks_hold_across_chunk_borders(make_trace, monkeypatch):
    monkeypatch.setattr("moesim.traces.trace._CHUNK_BYTES", 8)
    request = np.repeat(np.arange(6, dtype=np.int32), 3)
    position = np.tile(np.arange(3, dtype=np.int32), 6)
    trace = check(make_trace([[[0, 1]]] * 18, request=request, position=position))
    assert [trace.rows_of(i) for i in range(6)] == [slice(3 * i, 3 * i + 3) for i in range(6)]
    for row in range(18):
        if row % 3:
            wrong = position.copy()
            wrong[row] = wrong[row - 1]
            with pytest.raises(TraceError, match=f"position\\[{row}\\]"):
                check(make_trace([[[0, 1]]] * 18, request=request, position=wrong))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 9}, "top_k 9 is more than num_experts 8"),
        ({"moe_layer_indices": [1, 1]}, "moe_layer_indices must ascend"),
        ({"expert_bytes": [1]}, "expert_bytes needs one size per MoE layer: 1 for 2"),
        ({"num_experts": 65536}, "less than or equal to 65535"),
    ],
)
def test_card_fits_together(changes, message):
    fields = {
        "name": "x",
        "model": "m",
        "num_experts": 8,
        "top_k": 2,
        "moe_layer_indices": [0, 1],
        "origin": "captured",
    }
    with pytest.raises(ValueError, match=message):
        TraceCard.model_validate(fields | changes)


def test_synthetic_and_stand_in_stick_to_a_card(full_trace):
    captured = full_trace.card
    assert captured.labels == ()
    assert captured.derived("prune()").origin == "transformed"
    assert captured.derived("prune()").labels == ()
    synthetic = (
        captured.model_copy(update={"origin": "synthetic"}).derived("prune()").derived("stand_in(2)", "stand-in")
    )
    assert (synthetic.origin, synthetic.labels) == ("synthetic", ("synthetic", "stand-in"))
    later = captured.derived("stand_in(2)", "stand-in").derived("prune()")
    assert (later.origin, later.labels, later.transforms) == ("stand-in", ("stand-in",), ["stand_in(2)", "prune()"])
