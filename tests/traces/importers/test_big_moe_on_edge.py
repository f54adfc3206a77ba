import numpy as np
import pytest

from moesim.errors import FileError, MoesimError, TraceError
from moesim.traces.importers.big_moe_on_edge import import_big_moe_on_edge
from moesim.traces.importers.neutral import import_neutral

PREAMBLE = """# route_trace v1
# model=models/tiny.gguf arch=tinymoe n_layer=3 n_expert=4 n_expert_used=2
# layer=0 expert_bytes=0 dense_bytes=500
# layer=1 expert_bytes=10 dense_bytes=50
# layer=2 expert_bytes=20 dense_bytes=50
"""
HEADER = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"
#: Prefill of two tokens, layer by layer, layer 2 for the last one only; one decode step; a second turn.
ROWS = """0,0,0,1,0,3,0.75,0,10
0,0,0,1,1,1,0.25,0,10
0,0,1,1,0,2,0.5,0,10
0,0,1,1,1,3,0.5,0,0
0,0,1,2,0,0,1,0,20
0,0,1,2,1,1,0,0,20
0,1,2,1,0,3,0.5,1,0
0,1,2,1,1,2,0.5,1,0
0,1,2,2,0,1,0.625,1,0
0,1,2,2,1,0,0.375,1,0
1,0,5,1,0,0,0.5,0,10
1,0,5,1,1,1,0.5,1,0
1,0,5,2,0,0,5e-1,1,0
1,0,5,2,1,1,0.5,1,0
"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a file out of its three parts."""

    def write(rows=ROWS, header=HEADER, preamble=PREAMBLE):
        (tmp_path / "route.csv").write_text(preamble + header + "\n" + rows)
        return tmp_path / "route.csv"

    return write


def test_by_hand(write):
    trace = import_big_moe_on_edge(write())
    assert trace.experts.tolist() == [
        [[3, 1], [255, 255]],
        [[2, 3], [0, 1]],
        [[3, 2], [1, 0]],
        [[0, 1], [0, 1]],
    ]
    assert trace.weights[1].tolist() == [[0.5, 0.5], [1, 0]]
    assert (trace.request.tolist(), trace.position.tolist(), trace.phase.tolist()) == (
        [0, 0, 0, 1],
        [0, 1, 2, 5],
        [0, 0, 1, 0],
    )
    assert (trace.card.moe_layer_indices, trace.card.expert_bytes, trace.num_experts) == ([1, 2], [10, 20], 4)
    assert trace.card.model == "models/tiny.gguf"


def test_columns_are_read_by_name(write):
    lines = [line.split(",") for line in ROWS.splitlines()]
    order = [8, 5, 4, 3, 2, 1, 0, 6, 7]
    rows = "".join(",".join(line[i] for i in order) + ",1\n" for line in lines)
    header = ",".join(HEADER.split(",")[i] for i in order) + ",dropped"
    assert import_big_moe_on_edge(write(rows, header)).sha256 == import_big_moe_on_edge(write()).sha256


def test_windows_line_ends_and_no_last_newline(write):
    path = write()
    expected = import_big_moe_on_edge(path).sha256
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").rstrip())
    assert import_big_moe_on_edge(path).sha256 == expected


def test_weights_that_nobody_knows(write):
    rows = "".join(",".join([*line.split(",")[:6], "nan", "0", "0"]) + "\n" for line in ROWS.splitlines())
    assert import_big_moe_on_edge(write(rows)).weights is None
    with pytest.raises(TraceError, match="knows the weight of some experts only"):
        import_big_moe_on_edge(write(ROWS.replace("0.75", "nan")))


def test_what_the_comments_don_t_say_is_asked_for(write):
    path = write(preamble="# route_trace v1\n")
    with pytest.raises(TraceError, match="give the option num_experts"):
        import_big_moe_on_edge(path)
    trace = import_big_moe_on_edge(path, num_experts=8)
    assert (trace.num_experts, trace.card.expert_bytes) == (8, None)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("0,1,2,1,0,3,", "0,1,2,1,0,", 13, "one number for each of turn,phase"),
        ("0,1,2,1,0,3,", "0,1,2,1,0,three,", 13, "got '0,1,2,1,0,three,0.5,1,0'"),
        ("0,1,2,1,0,3,", "0,2,2,1,0,3,", 13, "phase must be a whole number from 0 to 1"),
        ("0,1,2,1,0,3,", "0,1,-2,1,0,3,", 13, "step must be a whole number"),
        ("0,1,2,1,0,3,", "0,1,2,1,0,2.5,", 13, "expert must be a whole number"),
        ("0,1,2,1,0,3,0.5", "0,1,2,1,0,3,-0.5", 13, "weight must be from 0 to 65504"),
        ("0,1,2,1,0,3,", "0,1,2,1,1,3,", 14, "repeats the turn, phase, step, layer and slot"),
        ("turn,phase", "turn,phases", 6, "has no column 'phase'"),
        ("turn,phase", "step,phase", 6, "has no column 'turn'"),
        ("residency", "turn", 6, "names a column twice"),
    ],
)
def test_a_broken_line_is_named(write, old, new, line, message):
    path = write()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(MoesimError, match=message) as error:
        import_big_moe_on_edge(path)
    assert error.value.faults[0].place == f"{path}:{line}"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,0,0,1,0,4,0.5,0,0\n", "4 is no expert"),
        ("0,0,0,1,0,3,0.5,0,0\n0,0,0,1,1,3,0.5,0,0\n", "expert 3 stands twice"),
        ("0,0,0,1,0,3,0.5,0,0\n0,1,0,1,0,2,0.5,0,0\n", "does not ascend"),
    ],
)
def test_routing_that_contradicts_itself(write, rows, message):
    with pytest.raises(TraceError, match=message):
        import_big_moe_on_edge(write(rows))


@pytest.mark.parametrize("rows", [""])
def test_nothing_in_it(write, rows, tmp_path):
    with pytest.raises(FileError, match="holds no routing"):
        import_big_moe_on_edge(write(rows))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(FileError, match="holds no routing"):
        import_big_moe_on_edge(tmp_path / "empty.csv")


def test_as_the_published_conversion(shared_data, tmp_path):
    """The published Qwen trace, written out in its original format, comes back the same."""
    known = import_neutral(shared_data / "traces" / "qwen3-30b-a3b_edge.npz")
    token, layer, slot = np.nonzero(known.experts != known.sentinel)
    columns = [
        np.zeros(len(token), int),
        known.phase[token],
        known.position[token],
        layer,
        slot,
        known.experts[token, layer, slot],
    ]
    weights = known.weights[token, layer, slot]
    order = np.lexsort((slot, token, layer, np.where(columns[1] == 0, -1, token)))
    lines = [",".join(str(column[i]) for column in columns) + f",{weights[i]:.6g},0,0\n" for i in order]
    sizes = "".join(f"# layer={i} expert_bytes={size}\n" for i, size in enumerate(known.card.expert_bytes))
    path = tmp_path / "qwen.route.csv"
    path.write_text(f"# route_trace v1\n# n_expert=128\n{sizes}{HEADER}\n" + "".join(lines))
    assert import_big_moe_on_edge(path).sha256 == known.sha256


def test_files_that_would_be_mostly_empty_are_refused(write):
    """5,000 tokens, each in a layer of its own: 25 million cells for 5,000 lines."""
    with pytest.raises(TraceError, match="nearly all of the trace would be empty"):
        import_big_moe_on_edge(write("".join(f"0,1,{i},{i},0,1,0.5,0,0\n" for i in range(5000))))
