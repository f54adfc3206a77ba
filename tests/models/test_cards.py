"""Every card loads; a card with something wrong says what, where, and what to try."""

import pytest

from moesim.errors import CardError, FileError
from moesim.models import available_models, load_model, read_model
from moesim.models.catalog import CARDS

MIXTRAL = (CARDS / "mixtral-8x7b.yaml").read_text()


@pytest.mark.parametrize("name", available_models())
def test_a_card_loads_and_is_consistent(name):
    spec = load_model(name)
    assert spec.name == name
    assert spec.moe_layer_indices == tuple(sorted(set(spec.moe_layer_indices)))
    assert set(spec.moe_layer_indices) <= set(range(spec.num_layers))
    assert bool(spec.moe_layer_indices) == bool(spec.num_experts)
    assert all(spec.mixer(layer).kind for layer in range(spec.num_layers))


def test_layer_patterns():
    assert load_model("deepseek-v3").moe_layer_indices == tuple(range(3, 61))
    assert load_model("llama-4-maverick").moe_layer_indices == tuple(range(1, 48, 2))
    assert load_model("openmoe-8b").moe_layer_indices == (5, 11, 17, 23)


MUTATIONS = {
    "misspelt key": ("top_k: 2", "topk: 2", ["topk: unknown key", "top_k: is required"]),
    "text for a number": ("num_layers: 32", "num_layers: many", ["num_layers: "]),
    "negative": ("num_experts: 8", "num_experts: -8", ["num_experts: input should be greater than or equal to 0"]),
    "fraction of a layer": ("num_layers: 32", "num_layers: 32.5", ["num_layers: "]),
    "more chosen than there are": ("top_k: 2", "top_k: 9", ["top_k 9 is more than num_experts 8"]),
    "unknown precision": ("expert_precision: bf16", "expert_precision: bf61", ["expert_precision: unknown precision"]),
    "unknown attention": ("kind: gqa", "kind: gpa", ["attention: "]),
    "no source": ("  source: config.json", "  sauce: config.json", ["config.source: is required"]),
    "another name": ("name: mixtral-8x7b", "name: mixtral", ["name: must be the file's name"]),
    "dense layers without width": (
        "num_layers: 32",
        "num_layers: 32\nnum_dense_layers: 2",
        ["dense_intermediate_size"],
    ),
    "no MoE layer": (
        "num_layers: 32",
        "num_layers: 32\nmoe_layer_period: 2\nmoe_layer_offset: 2\ndense_intermediate_size: 8",
        ["no layer is an MoE layer"],
    ),
    "no experts where a layer has some": ("num_experts: 8", "num_experts: 0", ["num_experts must be above 0"]),
    "unknown field unverified": (
        "num_layers: 32",
        "num_layers: 32\nunverified: {width: guess}",
        ["names no field: width"],
    ),
    "key twice": ("top_k: 2", "top_k: 2\ntop_k: 4", ["top_k: stands twice"]),
    "too many layers": ("num_layers: 32", "num_layers: 1_000_000", ["num_layers: input should be less than"]),
    "not YAML": ("num_layers: 32", "num_layers: [32", ["not valid YAML"]),
}


@pytest.mark.parametrize(("old", "new", "messages"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_wrong_card_is_refused(tmp_path, old, new, messages):
    assert old in MIXTRAL
    path = tmp_path / "mixtral-8x7b.yaml"
    path.write_text(MIXTRAL.replace(old, new, 1))
    with pytest.raises(CardError) as raised:
        read_model(path)
    text = str(raised.value)
    assert str(path) in text
    for message in messages:
        assert message in text


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(CardError) as raised:
        load_model("gpt-oss-20")
    assert str(raised.value) == "model: unknown name 'gpt-oss-20'\n    hint: did you mean 'gpt-oss-20b'?"


def test_a_missing_file_is_a_file_error(tmp_path):
    with pytest.raises(FileError):
        read_model(tmp_path / "nowhere.yaml")
