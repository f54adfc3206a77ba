import pytest

from moesim.studies.trace_comparison import headline, side_by_side
from moesim.studies.trace_info import describe
from moesim.traces.importers.neutral import import_neutral
from moesim.traces.synthetic import SyntheticRouting, synthesize


def made(**changes):
    fields = {"num_layers": 2, "num_experts": 16, "top_k": 2, "requests": 4, "output_tokens": 100}
    return describe(synthesize(SyntheticRouting(**(fields | changes))))


def test_uniform_routing_is_the_measure():
    figures = headline(made(output_tokens=500))
    for name in ("consecutive overlap, x k/E", "LRU of 2 k experts a layer, x uniform"):
        assert figures[name] == pytest.approx(1, abs=0.1)
    assert figures["experts of 16 consecutive tokens, x uniform"] == pytest.approx(1, abs=0.02)


def test_one_column_for_each_trace():
    uniform, sticky = made(), made(stickiness=0.8, prompt_tokens=5)
    rows = dict(side_by_side([uniform, sticky]))
    assert rows["tokens"] == (400, 400)
    low, high = rows["consecutive overlap, x k/E"]
    assert high > 3 * low
    prefill = dict(side_by_side([uniform, sticky], "prefill"))
    assert prefill["tokens"] == (None, 20)
    assert prefill["LRU of 2 k experts a layer, x uniform"] == (None, None)


def test_a_real_model_is_as_is_known(shared_data):
    """Known of real models on decode: overlap 2.8 to 3.5 x k/E, LRU of 2 k a layer 2.3 to 2.8 x uniform."""
    figures = headline(describe(import_neutral(shared_data / "traces" / "gpt-oss-20b_decode.npz")))
    assert figures["consecutive overlap, x k/E"] == pytest.approx(3.50, abs=0.01)
    assert 2.3 < figures["LRU of 2 k experts a layer, x uniform"] < 2.8
