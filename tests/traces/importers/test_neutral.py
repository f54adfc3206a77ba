import json

import numpy as np
import pytest

from moesim.errors import FileError, MoesimError, TraceError
from moesim.traces import load_trace, save_trace
from moesim.traces.importers.neutral import import_neutral

META = {"model": "tiny", "num_experts": 4, "licence": "MIT", "source": "here", "how": "by hand"}


@pytest.fixture
def write(tmp_path):
    """A function that writes a neutral file of 3 tokens, 2 layers, top-2 of 4, with some arrays changed."""

    def write(said=None, **changes):
        arrays = {
            "experts": np.array([[[0, 1], [-1, -1]], [[2, 3], [1, -1]], [[3, 0], [1, 2]]], np.int16),
            "weights": np.array([[[0.5, 0.5], [np.nan, np.nan]], [[1, 0], [1, np.nan]], [[1, 0], [0, 1]]], np.float32),
            "sequence": np.array([4, 4, 9], np.int32),
            "position": np.array([0, 1, 7], np.int32),
            "phase": np.array([0, 1, 1], np.int8),
            "meta": np.array(json.dumps(META | (said or {}))),
        }
        path = tmp_path / "neutral.npz"
        np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
        return path

    return write


def test_by_hand(write, tmp_path):
    trace = import_neutral(write({"expert_bytes_per_layer": [10, 20], "moe_layer_indices": [1, 2]}))
    assert trace.experts.tolist() == [[[0, 1], [255, 255]], [[2, 3], [1, 255]], [[3, 0], [1, 2]]]
    assert trace.weights.tolist() == [[[0.5, 0.5], [0, 0]], [[1, 0], [1, 0]], [[1, 0], [0, 1]]]
    assert trace.recorded.tolist() == [[True, False], [True, True], [True, True]]
    assert (trace.request.tolist(), trace.position.tolist(), trace.phase.tolist()) == ([4, 4, 9], [0, 1, 7], [0, 1, 1])
    card = trace.card
    assert (card.name, card.model, card.origin, card.licence, card.source) == (
        "neutral",
        "tiny",
        "imported",
        "MIT",
        "here",
    )
    assert (card.expert_bytes, card.moe_layer_indices, card.notes) == ([10, 20], [1, 2], ["how: by hand"])
    save_trace(trace, tmp_path / "trace.npz")
    assert load_trace(tmp_path / "trace.npz").sha256 == trace.sha256


def test_phase_comes_from_the_array_the_meta_or_the_option(write):
    assert import_neutral(write({"phase": "decode only (batch 1)"}, phase=None)).phase.tolist() == [1, 1, 1]
    assert import_neutral(write(phase=None), phase="prefill").phase.tolist() == [0, 0, 0]
    with pytest.raises(TraceError, match="does not say the phase") as error:
        import_neutral(write(phase=None))
    assert error.value.faults[0].hint == "give the option phase: prefill or decode"
    with pytest.raises(TraceError, match="says the phase of each token itself"):
        import_neutral(write(), phase="decode")


def test_domains_where_every_sequence_is_described(write):
    trace = import_neutral(write({"sequences": [{"dataset": "b", "category": "x"}, {"category": "a"}]}))
    assert [domain.name for domain in trace.card.domains] == ["a", "b"]
    assert trace.domain.tolist() == [1, 1, 0]
    assert import_neutral(write({"sequences": [{"dataset": "b"}]})).domain is None


@pytest.mark.parametrize(
    ("meta", "changes", "message"),
    [
        ({}, {"experts": None}, "has no array 'experts'"),
        ({}, {"meta": np.array("{")}, "meta: is not JSON"),
        ({}, {"meta": np.array("[]")}, "meta: must be a JSON object"),
        ({"num_experts": None}, {}, "does not say how many experts"),
        ({"num_experts": 3}, {}, r"experts\[1, 0, 1\]: 3 is no expert: ids run from 0 to 2, -1 means none"),
        ({"expert_bytes_per_layer": [1]}, {}, "expert_bytes needs one size per MoE layer: 1 for 2"),
        ({"expert_bytes_per_layer": "big"}, {}, "must be a list of whole numbers"),
        ({}, {"experts": np.zeros((3, 2, 2), np.uint16)}, "must be signed integers"),
        ({}, {"experts": np.zeros((3, 2), np.int16)}, "must be signed integers"),
        ({}, {"experts": np.full((3, 2, 2), -7, np.int16)}, "-7 is no expert"),
        ({}, {"position": np.array([1, 0, 0], np.int32)}, r"position\[1\]: 0 does not ascend"),
        ({}, {"position": np.array([0.0, 1, 2])}, "position: must be integers"),
        ({}, {"position": np.array([0, 2**40, 3])}, "doesn't fit int32"),
        ({}, {"sequence": np.array([4, 9, 4], np.int32)}, "rows of request 4 don't stand together"),
        ({}, {"sequence": np.array([4, 9], np.int32)}, "must have the shape"),
        ({}, {"phase": np.array([0, 1, 2], np.int8)}, r"phase\[2\]: 2 is no phase"),
        ({}, {"weights": np.full((3, 2, 2), np.nan)}, r"weights\[0, 0, 0\]: nan is no gate weight"),
        ({}, {"weights": np.full((3, 2, 2), 1e30)}, r"weights\[0, 0, 0\]: inf is no gate weight"),
        ({}, {"weights": np.zeros((3, 2))}, "must be floats of the shape of experts"),
    ],
)
def test_broken_files(write, meta, changes, message):
    with pytest.raises(MoesimError, match=message):
        import_neutral(write(meta, **changes))


def test_no_archive(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        import_neutral(tmp_path / "x.npz")


def test_published_files(shared_data):
    qwen = import_neutral(shared_data / "traces" / "qwen3-30b-a3b_edge.npz")
    assert repr(qwen) == "<RoutingTrace 'qwen3-30b-a3b_edge', imported: 156 tokens x 48 layers x top-6 of 128>"
    assert (int((~qwen.recorded).sum()), int((qwen.phase == 0).sum()), sum(qwen.card.expert_bytes)) == (
        27,
        28,
        137134080,
    )
    gpt = import_neutral(shared_data / "traces" / "gpt-oss-20b_decode.npz")
    assert (gpt.num_tokens, len(gpt.request_ids), set(gpt.phase.tolist())) == (12732, 38, {1})
    assert (len(gpt.card.domains), gpt.recorded) == (11, None)
