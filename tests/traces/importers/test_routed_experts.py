import base64
import io
import json

import numpy as np
import pytest

from moesim.errors import FileError, MoesimError, TraceError
from moesim.traces.importers.routed_experts_json import import_routed_experts_json
from moesim.traces.importers.routed_experts_npy import import_routed_experts_npy

#: Four tokens, a dense layer (zeros, as the engines give it) and two MoE layers, top-2 of 8.
EXPERTS = np.array([[[0, 0], [t, t + 1], [t + 2, t + 3]] for t in range(4)])
OPTIONS = {"num_experts": 8, "moe_layers": (1, 2)}


def text(data):
    return base64.b64encode(data).decode()


def flat(experts=EXPERTS, dtype="<i4"):
    """As SGLang sends it."""
    return text(experts.astype(dtype).tobytes())


def npy(experts=EXPERTS, dtype=np.uint8):
    """As vLLM sends it."""
    stream = io.BytesIO()
    np.save(stream, experts.astype(dtype))
    return text(stream.getvalue())


@pytest.fixture
def write(tmp_path):
    """A function that writes something as JSON; its lines where the name ends in .jsonl."""

    def write(value, name="response.json"):
        lines = [json.dumps(one) for one in (value if name.endswith(".jsonl") else [value])]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return write


def sglang(**meta):
    return {"text": "x", "meta_info": {"prompt_tokens": 3, "completion_tokens": 2, "routed_experts": flat(), **meta}}


VLLM = {
    "model": "served",
    "usage": {"prompt_tokens": 3},
    "choices": [{"index": 0, "routed_experts": npy()}],
}
RESPONSES = [
    sglang(),
    sglang(routed_experts=flat(dtype="u1"), routed_experts_dtype="uint8"),
    {"sglext": {"routed_experts": flat()}, "usage": {"prompt_tokens": 3}},
    VLLM,
    {
        "usage": {"prompt_tokens": 3},
        "prompt_routed_experts": EXPERTS[:3].tolist(),
        "choices": [{"routed_experts": EXPERTS[3:].tolist()}],
    },
]


@pytest.mark.parametrize("response", RESPONSES)
def test_every_way_of_sending_it(write, response):
    trace = import_routed_experts_json(write(response), **OPTIONS, num_layers=3, top_k=2)
    assert trace.experts.tolist() == EXPERTS[:, 1:].tolist()
    assert (trace.phase.tolist(), trace.position.tolist()) == ([0, 0, 0, 1], [0, 1, 2, 3])
    assert trace.card.moe_layer_indices == [1, 2]


def test_many_responses_are_many_requests(write):
    one = import_routed_experts_json(write(RESPONSES), **OPTIONS, num_layers=3, top_k=2)
    lines = import_routed_experts_json(write(RESPONSES, "r.jsonl"), **OPTIONS, num_layers=3, top_k=2)
    assert one.request.tolist() == np.repeat(range(5), 4).tolist()
    assert one.sha256 == lines.sha256
    choices = VLLM | {"choices": VLLM["choices"] * 2}
    assert import_routed_experts_json(write(choices), **OPTIONS).request.tolist() == [0] * 4 + [1] * 4


def test_the_model_is_the_server_s_unless_named(write):
    assert import_routed_experts_json(write(VLLM), **OPTIONS).card.model == "served"
    assert import_routed_experts_json(write(VLLM), **OPTIONS, model="mine").card.model == "mine"


def test_rows_from_a_later_position_on(write):
    response = sglang(routed_experts=flat(EXPERTS[2:]), routed_experts_start_len=2)
    trace = import_routed_experts_json(write(response), **OPTIONS, num_layers=3, top_k=2)
    assert (trace.position.tolist(), trace.phase.tolist()) == ([2, 3], [0, 1])


def test_prompt_lengths_that_nobody_said_are_asked_for(write):
    response = {"choices": VLLM["choices"]}
    with pytest.raises(TraceError, match="give the option prompt_tokens"):
        import_routed_experts_json(write(response), **OPTIONS)
    assert import_routed_experts_json(write(response), **OPTIONS, prompt_tokens=(1,)).phase.tolist() == [0, 1, 1, 1]
    with pytest.raises(TraceError, match="leave out the option prompt_tokens"):
        import_routed_experts_json(write(VLLM), **OPTIONS, prompt_tokens=(1,))
    with pytest.raises(TraceError, match="2 prompt lengths for 1 requests"):
        import_routed_experts_json(write(response), **OPTIONS, prompt_tokens=(1, 1))


@pytest.mark.parametrize(
    ("response", "options", "message"),
    [
        (sglang(), {}, "give the options num_layers .* and top_k"),
        (sglang(), {"num_layers": 5, "top_k": 2}, "no multiple of 40 .5 layers x top-2 int32."),
        (sglang(routed_experts="%%%"), {"num_layers": 3, "top_k": 2}, "is not base64"),
        (sglang(routed_experts=""), {"num_layers": 3, "top_k": 2}, "has 0 bytes"),
        (sglang(routed_experts_dtype="object"), {"num_layers": 3, "top_k": 2}, "unknown routed_experts_dtype"),
        (sglang(routed_experts=None), {}, "has no routed_experts"),
        (sglang(prompt_tokens="3"), {}, "must be whole numbers"),
        ({"choices": []}, {}, "has no routed_experts"),
        ({"choices": [{"routed_experts": npy()}, {}]}, {}, "has no routed_experts"),
        ({"choices": [{"routed_experts": [[1], [2, 3]]}]}, {}, "no even"),
        ({"choices": [{"routed_experts": [[1, 2]]}]}, {}, "must be integers"),
        ({"choices": [{"routed_experts": [[[0.5]]]}]}, {}, "must be integers"),
        ({"choices": [{"routed_experts": text(b"\x93NUMPY junk")}]}, {}, "no sound .npy header"),
        ([], {}, "holds no response"),
        ([3], {}, r"\[0\]: must be a response"),
        ([VLLM, {**VLLM, "choices": [{"routed_experts": npy(EXPERTS[:, :2])}]}], {}, "different layers"),
        ({**VLLM, "choices": [{"routed_experts": npy(EXPERTS + 7)}]}, {}, "is no expert"),
    ],
)
def test_broken_responses(write, response, options, message):
    with pytest.raises(MoesimError, match=message):
        import_routed_experts_json(write(response), **OPTIONS, **options)


def test_dense_layers_are_noticed(write):
    with pytest.raises(TraceError, match="expert 0 stands twice"):
        import_routed_experts_json(write(VLLM), num_experts=8)
    with pytest.raises(TraceError, match="has 3 layers, moe_layers names"):
        import_routed_experts_json(write(VLLM), num_experts=8, moe_layers=(1, 9))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(VLLM) + "\n{broken\n")
    with pytest.raises(FileError, match=r"r.jsonl:2: is not JSON"):
        import_routed_experts_json(tmp_path / "r.jsonl", **OPTIONS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_bare_arrays(tmp_path, dtype):
    np.save(tmp_path / "routed.npy", EXPERTS.astype(dtype))
    trace = import_routed_experts_npy(tmp_path / "routed.npy", **OPTIONS, prompt_tokens=(1, 0), request_tokens=(3, 1))
    assert trace.experts.tolist() == EXPERTS[:, 1:].tolist()
    assert (trace.request.tolist(), trace.phase.tolist()) == ([0, 0, 0, 1], [0, 1, 1, 1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (EXPERTS.astype(float), "must be integers"),
        (EXPERTS[0], "must be integers"),
        (EXPERTS[:0], "none of them 0"),
        (EXPERTS - 2, "-2 is no expert"),
    ],
)
def test_broken_arrays(tmp_path, array, message):
    np.save(tmp_path / "routed.npy", array)
    with pytest.raises(TraceError, match=message):
        import_routed_experts_npy(tmp_path / "routed.npy", num_experts=8, prompt_tokens=(0,), request_tokens=None)


def test_pickled_and_truncated_arrays(tmp_path):
    path = tmp_path / "routed.npy"
    np.save(path, np.array([None]), allow_pickle=True)
    with pytest.raises(FileError, match="pickled Python objects"):
        import_routed_experts_npy(path, **OPTIONS, prompt_tokens=(0,))
    np.save(path, EXPERTS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FileError, match="where its header announces"):
        import_routed_experts_npy(path, **OPTIONS, prompt_tokens=(0,))
