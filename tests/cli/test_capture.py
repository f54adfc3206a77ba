"""``moesim trace capture`` on a tiny model with random weights, saved and loaded as a user's would be."""

import pytest
from typer.testing import CliRunner

from moesim.cli.app import app
from moesim.errors import TraceError
from moesim.traces import load_trace

LINES = '{"prompt": "hello world", "domain": "greeting"}\n\n{"prompt": "this is text", "domain": "prose"}\n'


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(LINES)
    return path


@pytest.fixture
def model(tmp_path):
    pytest.importorskip("torch", reason="needs the extra moesim[capture]")
    transformers = pytest.importorskip("transformers", reason="needs the extra moesim[capture]")
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra moesim[capture]")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["hello world, this is text"] * 20, trainer)
    folder = tmp_path / "tiny-mixtral"
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = transformers.MixtralConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, ["trace", "capture", *map(str, arguments)], catch_exceptions=False)


def test_a_saved_model_is_recorded(model, prompts, tmp_path):
    target = tmp_path / "out" / "trace.npz"
    result = invoke(model, "--prompts", prompts, "-o", target, "--new-tokens", 5, "--lookahead", 2)
    assert result.exit_code == 0, result.output
    trace = load_trace(target)
    assert (trace.num_layers, trace.num_experts, trace.top_k) == (3, 8, 2)
    assert trace.card.model == "tiny-mixtral"
    assert [domain.name for domain in trace.card.domains] == ["greeting", "prose"]
    assert sorted(trace.lookahead) == [1, 2]
    # the last of five generated tokens is not fed back: four decode rows for each of two requests
    assert int((trace.phase == 1).sum()) == 2 * 4


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "has no prompt"), ("hello\n", "1: is not an object"), ('{"prompt": 3}\n', "must be text")],
)
def test_bad_prompts_are_told_before_a_model_is_loaded(tmp_path, text, told):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=told):
        invoke("no-such-model", "--prompts", path, "-o", tmp_path / "t.npz")
    assert not (tmp_path / "t.npz").exists()


def test_a_model_that_cannot_be_loaded_is_one_message(prompts, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra moesim[capture]")
    with pytest.raises(TraceError, match="can't be loaded"):
        invoke(tmp_path / "nothing", "--prompts", prompts, "-o", tmp_path / "t.npz")
