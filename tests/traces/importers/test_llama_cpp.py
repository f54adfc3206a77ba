import pytest

from moesim.errors import FileError, TraceError
from moesim.traces.importers.llama_cpp import import_llama_cpp


@pytest.fixture
def write(tmp_path):
    """A function: (layer, experts of that layer's tokens) pairs, in file order, to a file with a line per expert."""

    def write(blocks, header="layer,expert\n"):
        lines = [f"{layer},{expert}\n" for layer, experts in blocks for expert in experts]
        (tmp_path / "moe.csv").write_text(header + "".join(lines))
        return tmp_path / "moe.csv"

    return write


#: Two prompt tokens in one micro-batch, the last layer for the last one only; then two decode steps. Layers 1, 2, 5.
HAND = [(1, [0, 1, 2, 3]), (2, [1, 0, 3, 2]), (5, [2, 0]), *[(layer, [3, 1]) for layer in (1, 2, 5, 1, 2, 5)]]
OPTIONS = {"num_experts": 4, "top_k": 2, "prompt_tokens": (2,)}


@pytest.mark.parametrize("header", ["", "layer,expert\n"])
def test_by_hand(write, header):
    trace = import_llama_cpp(write(HAND, header), **OPTIONS, model="m")
    assert trace.experts.tolist() == [
        [[0, 1], [1, 0], [255, 255]],
        [[2, 3], [3, 2], [2, 0]],
        [[3, 1], [3, 1], [3, 1]],
        [[3, 1], [3, 1], [3, 1]],
    ]
    assert trace.recorded.tolist() == [[True, True, False]] + [[True] * 3] * 3
    assert (trace.position.tolist(), trace.phase.tolist()) == ([0, 1, 2, 3], [0, 0, 1, 1])
    assert (trace.card.moe_layer_indices, trace.card.model) == ([1, 2, 5], "m")


def test_micro_batches_without_the_last_layer(write):
    prompt = [(0, [0, 1, 2, 3]), (0, [1, 2]), (1, [3, 0])]
    trace = import_llama_cpp(write(prompt), num_experts=4, top_k=2, prompt_tokens=(3,))
    assert trace.experts[:, 0].tolist() == [[0, 1], [2, 3], [1, 2]]
    assert trace.recorded.tolist() == [[True, False], [True, False], [True, True]]


def test_several_requests(write):
    trace = import_llama_cpp(write(HAND), **(OPTIONS | {"prompt_tokens": (1, 1)}), request_tokens=(1, 3))
    assert trace.request.tolist() == [0, 1, 1, 1]
    assert trace.phase.tolist() == [0, 0, 1, 1]


def test_pieces_join_anywhere(write, monkeypatch):
    whole = import_llama_cpp(write(HAND), **OPTIONS)
    for size in (1, 5, 17, 40):
        monkeypatch.setattr("moesim.traces.importers._number_lines.PIECE_BYTES", size)
        assert import_llama_cpp(write(HAND), **OPTIONS).sha256 == whole.sha256


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("0,1\n0,2\n0,x\n", 3, "must be 'layer,expert', two whole numbers .got '0,x'."),
        ("0,1\n0,2\n0\n", 3, "got '0'"),
        ("0,1,2\n", 1, "got '0,1,2'"),
        ("0,1\n\n0,2\n", 2, "got ''"),
        ("0,1\n0,-2\n", 2, "expert outside 0 to 3"),
        ("0,1\n0,4\n", 2, "expert outside 0 to 3"),
        ("0,1\n0,1.5\n", 2, "expert outside 0 to 3"),
        ("0,1\n99999999,1\n", 2, "impossible layer"),
        ("0,1\n0,2\n1,3\n", 3, "no multiple of top-2"),
        ("1,1\n1,2\n0,1\n0,2\n", 1, "breaks the order"),
        ("0,1\n0,2\n2,1\n2,2\n1,1\n1,2\n", 3, "breaks the order"),
        ("0,1\n0,2\n1,0\n1,1\n1,2\n1,3\n", 3, "breaks the order"),
        ("0,1\n0,2\n0,1\n0,2\n1,0\n1,1\n2,0\n2,1\n", 5, "breaks the order"),
        ("0,1\n0,2\n1,0\n1,1\n2,0\n2,1\n0,1\n0,2\n", 7, "breaks the order"),
    ],
)
def test_a_broken_line_is_named(tmp_path, text, line, message):
    (tmp_path / "moe.csv").write_text(text)
    with pytest.raises(TraceError, match=message) as error:
        import_llama_cpp(tmp_path / "moe.csv", **OPTIONS)
    assert error.value.faults[0].place == f"{tmp_path / 'moe.csv'}:{line}"


def test_a_broken_line_far_into_the_file(tmp_path):
    (tmp_path / "moe.csv").write_text("0,1\n" * 9999 + "0;1\n" + "0,1\n" * 77)
    with pytest.raises(TraceError, match=r"moe.csv:10000: must be"):
        import_llama_cpp(tmp_path / "moe.csv", **OPTIONS)


@pytest.mark.parametrize("text", ["", "layer,expert\n"])
def test_nothing_in_it(tmp_path, text):
    (tmp_path / "moe.csv").write_text(text)
    with pytest.raises(TraceError, match="holds no activations"):
        import_llama_cpp(tmp_path / "moe.csv", **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_tokens": (9,)}, "request 0 has 4 tokens, so no prompt of 9"),
        ({"prompt_tokens": (1, 1)}, "2 prompt lengths for 1 requests"),
        ({"request_tokens": (3,)}, "holds 4 tokens, the requests have 3 together"),
        ({"request_tokens": (4, 0), "prompt_tokens": (1, 0)}, "holds 4 tokens"),
    ],
)
def test_borders_that_don_t_fit(write, options, message):
    with pytest.raises(TraceError, match=message):
        import_llama_cpp(write(HAND), **(OPTIONS | options))


def test_no_text_file(tmp_path, monkeypatch):
    monkeypatch.setattr("moesim.traces.importers._number_lines.MAX_LINE_BYTES", 2**10)
    monkeypatch.setattr("moesim.traces.importers._number_lines.PIECE_BYTES", 2**10)
    (tmp_path / "x.csv").write_bytes(bytes(2**13))
    with pytest.raises(FileError, match="a line of megabytes"):
        import_llama_cpp(tmp_path / "x.csv", **OPTIONS)
    with pytest.raises(FileError, match="is a directory"):
        import_llama_cpp(tmp_path, **OPTIONS)
