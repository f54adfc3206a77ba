"""Whatever is done to a file: one of our errors, or a sound trace; never another exception."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.errors import MoesimError
from moesim.traces import check
from moesim.traces.importers import IMPORTERS, import_trace

ROUTED = np.arange(24).reshape(6, 2, 2).astype("<i4") % 8
BORDERS = {"num_experts": "8", "prompt_tokens": "2"}


def npz():
    stream = io.BytesIO()
    meta = json.dumps({"num_experts": 8, "phase": "decode only"})
    rows = np.arange(6, dtype=np.int32)
    np.savez(stream, experts=ROUTED.astype(np.int16), sequence=rows * 0, position=rows, meta=np.array(meta))
    return stream.getvalue()


def npy():
    stream = io.BytesIO()
    np.save(stream, ROUTED)
    return stream.getvalue()


def gate_lines():
    cells = [(layer, token) for token in range(6) for layer in range(2)]
    said = [
        {"layer_idx": lay, "token_idx": tok, "selected_ids": ROUTED[tok, lay].tolist(), "gate_weights": [0.75, 0.25]}
        for lay, tok in cells
    ]
    return "\n".join(map(json.dumps, said)).encode()


def route_lines():
    cells = [(token, layer, slot) for token in range(6) for layer in range(2) for slot in range(2)]
    lines = [f"0,{int(t > 1)},{t},{lay},{slot},{ROUTED[t, lay, slot]},0.5,0,0" for t, lay, slot in cells]
    return "\n".join(
        ["# n_expert=8", "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes", *lines]
    ).encode()


RESPONSE = {"meta_info": {"routed_experts": base64.b64encode(ROUTED.tobytes()).decode(), "prompt_tokens": 2}}
FILES = {
    "neutral": ("x.npz", npz(), {}),
    "routed-experts-npy": ("x.npy", npy(), BORDERS),
    "routed-experts-json": (
        "x.json",
        json.dumps(RESPONSE).encode(),
        {"num_experts": "8", "num_layers": "2", "top_k": "2"},
    ),
    "gate-jsonl": ("x.jsonl", gate_lines(), BORDERS),
    "big-moe-on-edge": ("x.csv", route_lines(), {}),
    "llama-cpp": (
        "x.csv",
        b"".join(b"%d,%d\n" % (layer, e) for token in ROUTED for layer in (0, 1) for e in token[layer]),
        BORDERS | {"top_k": "2"},
    ),
}


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_format_reads_the_same_routing(name, tmp_path):
    file, content, options = FILES[name]
    (tmp_path / file).write_bytes(content)
    assert import_trace(name, tmp_path / file, options).experts.tolist() == ROUTED.tolist()


@pytest.mark.parametrize("name", IMPORTERS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage(name, tmp_path, data):
    file, content, options = FILES[name]
    bad = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(bad) - 1))
        what = data.draw(st.sampled_from(["change", "digit", "cut", "repeat"]))
        if what == "change":
            bad[place] = data.draw(st.integers(0, 255))
        elif what == "digit":
            bad[place : place + 1] = str(data.draw(st.integers(0, 10**20))).encode()
        elif what == "cut":
            del bad[place : place + data.draw(st.integers(1, 40))]
            bad = bad or bytearray(b" ")
        else:
            bad[place:place] = bad[place : place + 40]
    (tmp_path / file).write_bytes(bad)
    try:
        trace = import_trace(name, tmp_path / file, options)
    except MoesimError as error:
        faults = error.faults
    else:
        faults = ()
        check(trace)
    assert all(str(tmp_path / file) in fault.place for fault in faults)
