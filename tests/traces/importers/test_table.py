import inspect

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.traces.importers import IMPORTERS, import_trace, options_of


def test_formats():
    assert list(IMPORTERS) == [
        "big-moe-on-edge",
        "gate-jsonl",
        "llama-cpp",
        "neutral",
        "routed-experts-json",
        "routed-experts-npy",
    ]


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_format_documents_every_option(name):
    text = inspect.getdoc(IMPORTERS[name])
    assert text is not None
    for option in options_of(name):
        assert f"\n    {option}: " in text


def test_options_come_as_text(tmp_path):
    np.save(tmp_path / "routed.npy", np.zeros((3, 1, 1), np.int32))
    options = {"num_experts": "4", "prompt_tokens": "1, 0", "request_tokens": "2,1", "model": "m"}
    trace = import_trace("routed-experts-npy", tmp_path / "routed.npy", options)
    assert (trace.num_experts, trace.request.tolist(), trace.card.model) == (4, [0, 0, 1], "m")


def test_all_wrong_options_are_told_at_once(tmp_path):
    with pytest.raises(TraceError) as error:
        import_trace("llama-cpp", tmp_path / "x", {"num_experts": "many", "topk": "2", "prompt_tokens": "1,x"})
    whole = "should be a valid integer, unable to parse string as an integer"
    told = {fault.place: (fault.message, fault.hint) for fault in error.value.faults}
    assert told == {
        "llama-cpp: num_experts": (f"{whole} (got 'many')", ""),
        "llama-cpp: top_k": ("is required: the format does not say it", "give it as top_k=VALUE"),
        "llama-cpp: prompt_tokens": (f"{whole} (got 'x')", ""),
        "llama-cpp: topk": ("unknown option", "did you mean 'top_k'?"),
    }


def test_unknown_format(tmp_path):
    with pytest.raises(TraceError, match="did you mean 'neutral'"):
        import_trace("neutrel", tmp_path, {})


def test_options_that_are_required():
    assert options_of("neutral") == {"phase": False, "num_experts": False}
    assert [name for name, needed in options_of("llama-cpp").items() if needed] == [
        "num_experts",
        "top_k",
        "prompt_tokens",
    ]
