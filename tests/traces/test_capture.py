"""Capture against the router outputs of tiny random models of every supported class."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="capture needs the extra moesim[capture]: torch and transformers")
transformers = pytest.importorskip("transformers", reason="capture needs the extra moesim[capture]")

from moesim.errors import TraceError  # noqa: E402
from moesim.traces import check, sentinel_of  # noqa: E402
from moesim.traces.capture import Request, RouterRecorder, capture, find_routers  # noqa: E402

EXPERTS, TOP_K, LAYERS, VOCABULARY = 8, 2, 4, 50
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": TOP_K,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LATENT_ATTENTION = {
    "kv_lora_rank": 8,
    "q_lora_rank": None,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "moe_intermediate_size": 12,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}
# Class name -> its config's arguments, and its number of shared experts.
MODELS = {
    "Mixtral": ({"num_local_experts": EXPERTS}, 0),
    "Olmoe": ({"num_experts": EXPERTS}, 0),
    "Qwen2Moe": (
        {
            "num_experts": EXPERTS,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 12,
            "use_sliding_window": False,
        },
        1,
    ),
    "Qwen3Moe": ({"num_experts": EXPERTS, "moe_intermediate_size": 12, "head_dim": 8}, 0),
    "DeepseekV2": (LATENT_ATTENTION, 2),
    "DeepseekV3": (LATENT_ATTENTION | {"n_group": 2, "topk_group": 1}, 2),
    "Phimoe": ({"num_local_experts": EXPERTS}, 0),
    "GptOss": ({"num_local_experts": EXPERTS, "head_dim": 8}, 0),
    "GraniteMoe": ({"num_local_experts": EXPERTS}, 0),
}
REQUESTS = [Request([1, 2, 3, 4, 5], 4), Request([7, 8, 9], 3), Request([1, 2, 3, 4, 5, 6, 7], 2)]


def tiny(kind: str):
    """A random model of a class; router weights large enough that no two experts tie."""
    arguments, _ = MODELS[kind]
    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(**COMMON | arguments)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for router in find_routers(model):
            for parameter in router.module.parameters():
                parameter.normal_()
    return model


@pytest.fixture(params=MODELS)
def kind(request):
    return request.param


@pytest.fixture
def model(kind):
    return tiny(kind)


class Witness:
    """What the routers were given and what they returned, by hooks of the test's own."""

    def __init__(self, model):
        self.routers = [router.module for router in find_routers(model)]
        self.passes = [[] for _ in self.routers]
        for calls, router in zip(self.passes, self.routers, strict=True):
            router.register_forward_hook(lambda _m, args, output, calls=calls: calls.append((args[0].clone(), output)))

    def weight_by_expert(self, layer):
        """[tokens, experts]: the gate weight of each chosen expert, NaN elsewhere."""
        return torch.cat([by_expert(output) for _, output in self.passes[layer]]).numpy()

    def prediction(self, layer, distance):
        """The same of what the router `distance` layers on says to this layer's inputs."""
        with torch.no_grad():
            outputs = [self.routers[layer + distance].forward(given) for given, _ in self.passes[layer]]
        return torch.cat([by_expert(output) for output in outputs]).numpy()


def by_expert(output):
    _, weights, experts = output
    table = torch.full((len(experts), EXPERTS), torch.nan)
    return table.scatter(1, experts, weights.detach().float())


def test_the_routers_are_found_in_layer_order(kind, model):
    routers = find_routers(model)
    first = 1 if kind.startswith("Deepseek") else 0
    assert [router.layer_index for router in routers] == list(range(first, LAYERS))
    assert {(router.num_experts, router.top_k) for router in routers} == {(EXPERTS, TOP_K)}
    assert {router.num_shared_experts for router in routers} == {MODELS[kind][1]}


def test_a_trace_holds_what_the_routers_returned(model):
    witness = Witness(model)
    trace = check(capture(model, REQUESTS, name="tiny", seed=1))
    for layer in range(trace.num_layers):
        applied = witness.weight_by_expert(layer)
        chosen = np.sort(np.argsort(np.nan_to_num(applied, nan=-1.0), axis=1)[:, -TOP_K:], axis=1)
        assert (np.sort(trace.experts[:, layer], axis=1) == chosen).all()
        recorded = np.take_along_axis(applied, trace.experts[:, layer].astype(np.int64), axis=1)
        assert trace.weights[:, layer].tolist() == recorded.astype(np.float16).tolist()
        assert (np.diff(recorded, axis=1) <= 0).all()  # rank order: the highest weight first


def test_lookahead_is_the_later_router_on_this_routers_input(model):
    witness = Witness(model)
    trace = capture(model, REQUESTS, name="tiny", lookahead={1: 1, 2: 1, 3: 1})
    for distance, predicted in trace.lookahead.items():
        known = max(0, trace.num_layers - distance)
        assert (predicted[:, known:] == sentinel_of(predicted.dtype)).all()
        for layer in range(known):
            wanted = ~np.isnan(witness.prediction(layer, distance))
            found = np.zeros_like(wanted)
            np.put_along_axis(found, predicted[:, layer].astype(np.int64), True, axis=1)
            assert (found == wanted).all()


def test_rows_are_the_tokens_that_were_fed_in_order(model):
    trace = capture(model, REQUESTS, name="tiny")
    for place, request in enumerate(REQUESTS):
        rows = trace.rows_of(place)
        fed = len(request.prompt) + request.new_tokens - 1
        assert trace.position[rows].tolist() == list(range(fed))
        assert trace.phase[rows].tolist() == [0] * len(request.prompt) + [1] * (request.new_tokens - 1)
        assert trace.token_id[rows][: len(request.prompt)].tolist() == list(request.prompt)


def test_decode_with_a_cache_routes_as_one_pass_over_the_same_tokens(model):
    trace = capture(model, REQUESTS[:1], name="tiny", temperature=0)
    with RouterRecorder(model) as recorder, torch.inference_mode():
        model(torch.from_numpy(trace.token_id.astype(np.int64))[None], use_cache=False)
    routing = recorder.take()
    assert (np.stack([one.experts for one in routing], axis=1) == trace.experts).all()


@pytest.fixture(scope="module")
def mixtral():
    return tiny("Mixtral")


def test_the_same_seed_gives_the_same_trace_and_another_seed_another(mixtral):
    one, same, other = (capture(mixtral, REQUESTS, name="tiny", seed=seed) for seed in (5, 5, 6))
    assert one.sha256 == same.sha256
    assert one.sha256 != other.sha256


def test_what_a_request_samples_does_not_depend_on_the_others(mixtral):
    alone, among = capture(mixtral, REQUESTS[:1], name="tiny"), capture(mixtral, REQUESTS, name="tiny")
    assert (alone.token_id == among.token_id[among.rows_of(0)]).all()


def test_recording_does_not_touch_the_callers_random_stream_nor_leave_hooks(mixtral):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    capture(mixtral, REQUESTS, name="tiny")
    assert torch.rand(1) == wanted
    assert not any(router.module._forward_hooks for router in find_routers(mixtral))


def test_far_lookahead_may_be_recorded_for_some_requests_only(mixtral):
    trace = capture(mixtral, REQUESTS, name="tiny", lookahead={1: 1, 2: 2})
    none = sentinel_of(trace.experts.dtype)
    assert (trace.lookahead[1][:, : LAYERS - 1] != none).all()
    assert (trace.lookahead[2][trace.request == 1] == none).all()
    assert (trace.lookahead[2][trace.request == 2][:, : LAYERS - 2] != none).all()


def test_the_card_says_what_follows_from_the_model(mixtral):
    card = capture(mixtral, REQUESTS, name="tiny").card
    assert (card.name, card.model, card.origin) == ("tiny", "MixtralForCausalLM", "captured")
    assert (card.num_experts, card.top_k, card.moe_layer_indices) == (EXPERTS, TOP_K, list(range(LAYERS)))
    assert {"torch", "transformers"} <= card.versions.keys()


@pytest.mark.parametrize("requests", [[], [Request([], 2)], [Request([1], 0)]])
def test_requests_without_tokens_are_refused(mixtral, requests):
    with pytest.raises(TraceError):
        capture(mixtral, requests, name="tiny")


def test_there_is_nothing_to_take_without_a_forward_pass(mixtral):
    with RouterRecorder(mixtral) as recorder, pytest.raises(TraceError, match="no forward pass"):
        recorder.take()


def test_a_model_without_routers_and_one_in_training_are_refused(mixtral):
    with pytest.raises(TraceError, match="no router"):
        find_routers(torch.nn.Linear(2, 2))
    mixtral.train()
    try:
        with pytest.raises(TraceError, match="training mode"), RouterRecorder(mixtral):
            pass
    finally:
        mixtral.eval()
