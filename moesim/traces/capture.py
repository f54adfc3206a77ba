"""Record the routing of a Hugging Face mixture-of-experts model while it reads and generates.

Needs the extra ``moesim[capture]`` (torch, transformers). Three steps, of which a caller may use any:

- :func:`find_routers`: the routers of a model, in layer order;
- :class:`RouterRecorder`: hooks on them, for a caller that runs the model itself;
- :func:`capture`: prefill and generation of a list of requests, into a :class:`RoutingTrace`.

A router is the module ``gate`` or ``router`` beside the ``experts`` of an MoE block, which returns ``(logits, gate
weights, expert ids)``: so do Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE, DeepSeek-V2 and -V3, Phi-MoE, GPT-OSS and
Granite-MoE in transformers 5.

Lookahead d: what the router of MoE layer l + d chooses when it is fed the *input of layer l's router* as it is, that
is, after layer l's own norm. Prefetchers that apply the next gate to the current gating input (MoE-Infinity, HOBBIT,
Mixtral-offloading) predict so; the norm of layer l + d is not applied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import transformers

from moesim.errors import TraceError
from moesim.traces.card import Domain, TraceCard
from moesim.traces.trace import DECODE, PREFILL, RoutingTrace, expert_dtype, sentinel_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Router:
    """One router of a model: ``layer_index`` is the index of its decoder layer."""

    name: str
    layer_index: int
    module: torch.nn.Module
    num_experts: int
    top_k: int
    num_shared_experts: int


@dataclass(frozen=True)
class Request:
    """One request: the prompt's token ids, how many tokens to generate, and its domain's index (-1: unknown)."""

    prompt: Sequence[int]
    new_tokens: int
    domain: int = -1


@dataclass
class Routing:
    """What one router chose: ``experts`` and ``weights`` [tokens, top_k] in rank order (highest weight first).

    ``lookahead[d]`` [tokens, top_k] is the prediction, from this router's input, for the router d MoE layers on.
    """

    experts: Array
    weights: Array
    lookahead: dict[int, Array] = field(default_factory=dict)


def find_routers(model: torch.nn.Module) -> list[Router]:
    """The routers of ``model`` in layer order.

    Raises:
        TraceError: the model has none of a supported form, or they differ in their number of experts or top-k.
    """
    routers = [router for name, block in model.named_modules() if (router := _router_of(name, block, model))]
    if not routers:
        raise TraceError.of(
            type(model).__name__,
            "no router found: no block with `experts` beside a `gate` or `router` that knows top_k and num_experts",
            "Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE, DeepSeek-V2/V3, Phi-MoE, GPT-OSS and Granite-MoE are supported",
        )
    shapes = {(router.num_experts, router.top_k) for router in routers}
    if len(shapes) > 1:
        raise TraceError.of(type(model).__name__, f"its routers differ in (experts, top-k): {sorted(shapes)}")
    return sorted(routers, key=lambda router: router.layer_index)


def _router_of(name: str, block: Any, model: Any) -> Router | None:
    """The router of the block called ``name``, if it is an MoE block."""
    attribute = "gate" if hasattr(block, "gate") else "router"
    module: Any = getattr(block, attribute, None)
    index = re.search(r"\.(\d+)\.", name + ".")
    known = hasattr(block, "experts") and hasattr(module, "top_k") and hasattr(module, "num_experts")
    if index is None or not known:
        return None
    if hasattr(block, "shared_experts"):
        shared = int(getattr(model.config, "n_shared_experts", 1))
    else:
        shared = int(hasattr(block, "shared_expert"))
    layer = int(index.group(1))
    return Router(f"{name}.{attribute}", layer, module, int(module.num_experts), int(module.top_k), shared)


def in_rank_order(name: str, output: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Expert ids and gate weights [tokens, top_k] of a router's output, the highest weight first."""
    integers = (torch.int32, torch.int64)
    if not (isinstance(output, tuple) and len(output) == 3 and output[2].dtype in integers):
        raise TraceError.of(name, "the router does not return (logits, gate weights, expert ids)")
    weights, experts = output[1].detach().float(), output[2].detach()
    order = torch.argsort(weights, dim=-1, descending=True, stable=True)
    return experts.gather(-1, order), weights.gather(-1, order)


class RouterRecorder:
    """Hooks on the routers of ``model`` that record every forward pass inside a ``with`` block.

    ``distances`` are the lookahead distances to record. The model's outputs don't change. :meth:`take` hands out what
    was recorded since the last call, one :class:`Routing` per MoE layer, tokens in the order of the forward passes.
    The model must be in eval mode (routers may add noise while training).
    """

    def __init__(self, model: torch.nn.Module, distances: Sequence[int] = ()):
        self.model = model
        self.routers = find_routers(model)
        self.distances = tuple(distances)
        self._hooks: list[Any] = []
        self._passes: list[list[Routing]] = [[] for _ in self.routers]

    def __enter__(self) -> Self:
        if self.model.training:
            raise TraceError.of(type(self.model).__name__, "the model is in training mode", "call model.eval() first")
        for layer, router in enumerate(self.routers):
            self._hooks.append(router.module.register_forward_hook(self._hook(layer)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, layer: int) -> Any:
        def record(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            name = self.routers[layer].name
            experts, weights = in_rank_order(name, output)
            routing = Routing(experts.cpu().numpy(), weights.cpu().numpy())
            for distance in self.distances:
                if layer + distance < len(self.routers):
                    routing.lookahead[distance] = self._predict(layer + distance, inputs[0])
            self._passes[layer].append(routing)

        return record

    @torch.no_grad()
    def _predict(self, layer: int, router_input: torch.Tensor) -> Array:
        router = self.routers[layer]
        device = next(router.module.parameters()).device
        experts, _ = in_rank_order(router.name, router.module.forward(router_input.detach().to(device)))
        return experts.cpu().numpy()

    def take(self) -> list[Routing]:
        """What was recorded since the last call: one :class:`Routing` per MoE layer. Forgets it.

        Raises:
            TraceError: nothing was recorded.
        """
        if not all(self._passes):
            raise TraceError.of(type(self.model).__name__, "no forward pass was recorded", "run it inside `with`")
        taken = [_joined(passes) for passes in self._passes]
        self._passes = [[] for _ in self.routers]
        return taken


def _joined(passes: Sequence[Routing]) -> Routing:
    """The routing of several forward passes, one after the other."""
    experts, weights = ([getattr(one, part) for one in passes] for part in ("experts", "weights"))
    lookahead = {d: np.concatenate([one.lookahead[d] for one in passes]) for d in passes[0].lookahead}
    return Routing(np.concatenate(experts), np.concatenate(weights), lookahead)


def capture(
    model: Any,
    requests: Sequence[Request],
    *,
    name: str,
    temperature: float = 0.75,
    seed: int = 0,
    lookahead: Mapping[int, int] | None = None,
    domains: Sequence[Domain] = (),
    **generate_options: Any,
) -> RoutingTrace:
    """Record the routing of every request, one by one: its prompt in one forward pass, then token by token.

    Each request generates exactly its ``new_tokens`` by sampling at ``temperature`` (0: greedily), seeded by ``seed``
    and its place. As in a serving engine the last of them is not fed back, so that a request holds
    ``len(prompt) + new_tokens - 1`` rows. ``lookahead`` maps a distance d to n: the prediction for layer l + d is
    recorded for every n-th request (default ``{1: 1}``), elsewhere stands the sentinel. ``generate_options`` go to
    ``model.generate``.

    The trace has weights, domains, tokens and lookahead channels; its card is called ``name`` and says what follows
    from the model and this tool.

    Raises:
        TraceError: no request, an empty prompt, no new token, or a model whose routers are not supported.
    """
    lookahead = {1: 1} if lookahead is None else dict(lookahead)
    faulty = [place for place, request in enumerate(requests) if not len(request.prompt) or request.new_tokens < 1]
    if faulty or not requests:
        told = f"requests {faulty} have no prompt or no new token" if faulty else "there is none"
        raise TraceError.of("requests", told)
    rows = []
    for place, request in enumerate(requests):
        distances = [distance for distance, every in lookahead.items() if place % every == 0]
        with RouterRecorder(model, distances) as recorder:
            tokens = generate(model, request, temperature, seed + place, generate_options)
            rows.append(request_rows(recorder, request, place, tokens, lookahead))
    columns = {column: np.concatenate([part[column] for part in rows]) for column in rows[0]}
    channels = {distance: columns.pop(f"lookahead_{distance}") for distance in lookahead}
    card = card_of(model, name, domains)
    return RoutingTrace(card=card, lookahead=channels, **columns)


def generate(model: Any, request: Request, temperature: float, seed: int, options: Mapping[str, Any]) -> Array:
    """Read the prompt and sample ``new_tokens`` tokens from a random stream of its own: all token ids, int32."""
    prompt = torch.tensor([list(request.prompt)], device=model.device)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    length = {"min_new_tokens": request.new_tokens, "max_new_tokens": request.new_tokens}
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        sequences = model.generate(prompt, attention_mask=torch.ones_like(prompt), **sampling, **length, **options)
    return np.asarray(sequences[0].cpu().numpy(), dtype=np.int32)


def request_rows(
    recorder: RouterRecorder, request: Request, place: int, tokens: Array, distances: Mapping[int, int]
) -> dict[str, Array]:
    """The columns of one request, ``lookahead_d`` for each of ``distances`` too; a row per token that was fed."""
    layers = recorder.take()
    dtype = expert_dtype(recorder.routers[0].num_experts)
    experts = np.stack([routing.experts for routing in layers], axis=1).astype(dtype)
    position = np.arange(len(experts), dtype=np.int32)
    columns = {
        "experts": experts,
        "weights": np.stack([routing.weights for routing in layers], axis=1).astype(np.float16),
        "request": np.full_like(position, place),
        "position": position,
        "phase": np.where(position < len(request.prompt), PREFILL, DECODE).astype(np.uint8),
        "domain": np.full(len(position), request.domain, dtype=np.int16),
        "token_id": tokens[: len(position)],
    }
    for distance in distances:
        predicted = np.full_like(experts, sentinel_of(dtype))
        for layer, routing in enumerate(layers):
            if distance in routing.lookahead:
                predicted[:, layer] = routing.lookahead[distance]
        columns[f"lookahead_{distance}"] = predicted
    return columns


def card_of(model: Any, name: str, domains: Sequence[Domain] = ()) -> TraceCard:
    """The card of a captured trace, as far as it follows from the model and this tool."""
    routers = find_routers(model)
    return TraceCard(
        name=name,
        model=str(getattr(model.config, "_name_or_path", "") or type(model).__name__),
        num_experts=routers[0].num_experts,
        top_k=routers[0].top_k,
        moe_layer_indices=[router.layer_index for router in routers],
        num_shared_experts=routers[0].num_shared_experts,
        origin="captured",
        domains=list(domains),
        tool="moesim.traces.capture",
        versions={"numpy": np.__version__, "torch": str(torch.__version__), "transformers": transformers.__version__},
    )
