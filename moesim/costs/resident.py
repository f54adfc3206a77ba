"""A forward pass of a model whose weights are all in GPU memory, priced for one GPU of its group.

The interface for serving and expert parallelism::

    price = Resident(spec, precisions, gpu, Parallel(tp=2), Software("vllm"))      # frozen; prices are cached forms
    price.dense(tokens)                        -> list[Part]   all layers: projections, norms, router, shared experts,
                                                               dense FFN; one replica's tokens of the step
    price.attention(decode, prefill)           -> list[Part]   all layers, from a StepContext
    price.moe_layer(tokens, pairs, distinct)   -> Part         one MoE layer on one rank; sum over layers yourself or
                                                               give arrays [..., moe_layers] and use Part.total()
    price.head(sequences)                      -> list[Part]   output head and sampling
    price.all_reduces(tokens)                  -> list[Part]   all that tensor parallelism adds to a pass
    price.exchange(tokens, mode)               -> list[Part]   expert-parallel dispatch and combine, all MoE layers
    price.host(requests)                       -> Part         what the host adds to a step
    price.forward(Step(...))                   -> Pass         all of it

Every argument broadcasts over numpy arrays (one entry for each step); every :class:`~moesim.costs.part.Part` has
named terms in seconds, the constants that they rest on (``basis``: fitted here, of the class, from the card, assumed)
and where it is ``extrapolated``. Dense parts depend on the token count alone: price ``np.arange(max_tokens + 1)`` once
and look up.

``tokens`` are those of one attention replica; ``pairs`` and ``distinct`` those of *one rank* as the trace routes them
(:func:`rank_load` counts them): the slowest rank decides, and a mean over ranks is not its time.

A pipeline (``pp > 1``) has ``1/pp`` of the layers on each stage: parts are of the *whole* model on one GPU of each
stage, one stage after the other, and ``stages()`` adds the transfers between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs.attention import decode_load, even_decode_load, even_prefill_load, prefill_load
from moesim.costs.kernels import Kernels, Software
from moesim.costs.layers import Layers
from moesim.costs.parallel import Parallel
from moesim.costs.part import Basis, Constant, Part
from moesim.costs.products import shared_width
from moesim.costs.step import Contexts, Pass, Step
from moesim.hardware import GpuSpec
from moesim.hardware.fits import Fit, FitKey
from moesim.models import ModelSpec, Precisions, parameters
from moesim.models.attention import Mixer

__all__ = ["Contexts", "Parallel", "Part", "Pass", "Resident", "Software", "Step", "rank_load"]

Ints = NDArray[np.int64]
#: What a serving engine's host adds to a step that the GPU waits for: scheduling, preparing inputs, reading tokens
#: back; and for each request in it. Assumed, from profiles of engines that overlap most of this with the GPU.
HOST_STEP_S, HOST_REQUEST_S = 0.5e-3, 3e-6
#: Without CUDA graphs, a kernel every so often is what a Python host launches. Assumed.
EAGER_KERNEL_S = 6e-6


class Resident:
    """Prices of one GPU's share of a model (see the module).

    Raises:
        CardError: the model can't be divided that way.
    """

    def __init__(
        self,
        spec: ModelSpec,
        precisions: Precisions,
        gpu: GpuSpec,
        parallel: Parallel | None = None,
        software: Software | None = None,
        fits: Mapping[FitKey, Fit] | None = None,
    ):
        self.spec, self.precisions = spec, precisions
        self.parallel = parallel or Parallel()
        self.kernels = Kernels(gpu, software, fits)
        self.parallel.check(spec)
        self.layers = Layers(spec, precisions, self.kernels, self.parallel.tp)

    def contexts(self, decode: ArrayLike = (), prefill: ArrayLike = (), past: ArrayLike = 0) -> Contexts:
        """From each request's own lengths.

        Args:
            decode: positions that each decoding request sees, its new one included; 0: no request. [..., requests]
            prefill: new tokens of each prefilling request; 0: no request. [..., requests]
            past: of each of these, the positions that are in the KV cache already. [..., requests]
        """
        return Contexts.of(
            {window: decode_load(decode, window) for window in self.windows},
            {window: prefill_load(prefill, past, window) for window in self.windows},
        )

    def even_contexts(
        self,
        decoding: ArrayLike = 0,
        decode_context: ArrayLike = 0,
        prefilling: ArrayLike = 0,
        prefill_tokens: ArrayLike = 0,
    ) -> Contexts:
        """From counts and sums, all requests of one length: an approximation for many steps at once.

        Args:
            decoding, prefilling: requests. [...]
            decode_context: positions seen by all decoding requests together. [...]
            prefill_tokens: new tokens of all prefilling requests together, without a past. [...]
        """
        each = np.asarray(decode_context) / np.maximum(decoding, 1)
        new = np.asarray(prefill_tokens) / np.maximum(prefilling, 1)
        return Contexts.of(
            {window: even_decode_load(decoding, each, window) for window in self.windows},
            {window: even_prefill_load(prefilling, new, window) for window in self.windows},
        )

    def dense(self, tokens: ArrayLike) -> list[Part]:
        """Everything that every token passes, of all layers: depends on the token count alone. [...]"""
        count, spec, layers = np.asarray(tokens, dtype=np.float64), self.spec, self.layers
        parts = [part.times(times) for mixer, _, times in self._mixers for part in layers.mixer(mixer, count)]
        if dense := spec.num_layers - spec.num_moe_layers:
            parts += [part.times(dense) for part in layers.dense_ffn(count)]
        if spec.num_moe_layers:
            routed = [*layers.router(count), *layers.shared_experts(count)]
            parts += [part.times(spec.num_moe_layers) for part in routed]
        return [part for part in parts if part.seconds.any()]

    def attention(self, contexts: Contexts) -> list[Part]:
        """Attention and state mixers of all layers."""
        parts = [
            part.times(times)
            for mixer, window, times in self._mixers
            for part in self.layers.attention(mixer, window, contexts)
        ]
        return [part for part in parts if part.seconds.any()]

    def moe_layer(self, tokens: ArrayLike, pairs: ArrayLike, distinct: ArrayLike) -> Part:
        """The routed experts of one MoE layer on one rank.

        Args:
            tokens: that the expert-parallel group routes. [...]
            pairs: (token, expert) pairs of this rank; distinct: its different experts. [...]
        """
        spec, parallel = self.spec, self.parallel
        numbers = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (tokens, pairs, distinct)))
        sizes = {
            "topk": spec.top_k,
            "hidden": spec.hidden_size,
            "width": spec.moe_intermediate_size / parallel.moe_tp,
            "matrices": spec.ffn_matrices,
            "local_experts": spec.num_experts / parallel.ep,
            "ranks": parallel.ep,
            "gpus": parallel.ep * parallel.moe_tp,
        }
        work = {name: np.asarray(float(value)) for name, value in sizes.items()}
        return self.kernels.moe_layer(
            {**work, **dict(zip(("tokens", "pairs", "distinct"), numbers, strict=True))}, self.precisions.experts
        )

    def head(self, sequences: ArrayLike) -> list[Part]:
        """Output head and sampling for so many sequences. [...]"""
        return self.layers.head(np.asarray(sequences, dtype=np.float64))

    def all_reduces(self, tokens: ArrayLike, experts_too: bool = True) -> list[Part]:
        """Sums over the tensor-parallel GPUs: after attention, and after each feed-forward network. [...]

        Args:
            experts_too: also after MoE layers, over their group (no :meth:`exchange`).
        """
        spec, parallel = self.spec, self.parallel
        num_bytes = 2 * spec.hidden_size * np.asarray(tokens, dtype=np.float64)
        parts = []
        if parallel.tp > 1:
            networks = spec.num_layers - spec.num_moe_layers + (0 if experts_too else bool(shared_width(spec)))
            reduced = self.kernels.collective("all_reduce", num_bytes, parallel.tp, "all-reduce")
            parts.append(reduced.times(spec.num_layers + networks))
        group = parallel.tp * parallel.dp
        if experts_too and group > 1 and spec.num_moe_layers:
            reduced = self.kernels.collective("all_reduce", num_bytes * parallel.dp, group, "all-reduce")
            parts.append(reduced.times(spec.num_moe_layers))
        return parts

    def exchange(self, tokens: ArrayLike, mode: str = "low_latency") -> list[Part]:
        """Dispatch to the experts' ranks and combination, of all MoE layers; ``tokens`` of one GPU. [...]"""
        spec, ep = self.spec, self.parallel.ep
        if ep == 1 or not spec.num_moe_layers:
            return []
        sizes = {"hidden": spec.hidden_size, "topk": spec.top_k, "experts": spec.num_experts, "gpus": ep}
        work = {name: np.asarray(float(value)) for name, value in sizes.items()}
        work["tokens"] = np.asarray(tokens, dtype=np.float64)
        return [
            self.kernels.dispatch(operation, mode, work).times(spec.num_moe_layers)
            for operation in ("dispatch", "combine")
        ]

    def stages(self, tokens: ArrayLike) -> list[Part]:
        """Hidden states sent from each pipeline stage to the next. [...]"""
        num_bytes = 2 * self.spec.hidden_size * np.asarray(tokens, dtype=np.float64) / self.parallel.tp
        sent = self.kernels.collective("send_recv", num_bytes, 2, "between stages")
        return [sent.times(self.parallel.pp - 1)] if self.parallel.pp > 1 else []

    def host(self, requests: ArrayLike) -> Part:
        """What the host adds to a step of so many requests. [...]"""
        count = np.asarray(requests, dtype=np.float64)
        source = "a serving engine that overlaps most of its host work with the GPU (moesim.costs.resident)"
        constants = tuple(
            Constant(name, value, "s", source, "assumed")
            for name, value in (("host.step", HOST_STEP_S), ("host.request", HOST_REQUEST_S))
        )
        basis = Basis("host", self.kernels.software.engine, "assumed", constants)
        seconds = np.where(count > 0, HOST_STEP_S + HOST_REQUEST_S * count, 0.0)
        return Part("host", {"host": seconds}, basis, np.zeros(count.shape, dtype=bool))

    def forward(self, step: Step) -> Pass:
        """Every part of a step, one after the other."""
        contexts, spec = step.contexts, self.spec
        tokens, requests = contexts.tokens, contexts.decoding + contexts.prefilling
        parts = [*self.dense(tokens), *self.attention(contexts)]
        if spec.num_moe_layers:
            routed = tokens if step.moe_tokens is None else np.asarray(step.moe_tokens, dtype=np.float64)
            layers = self.moe_layer(routed[..., None], step.pairs, step.distinct)
            parts.append(layers.total())
        parts += self.all_reduces(tokens, experts_too=step.exchange is None)
        if step.exchange is not None:
            parts += self.exchange(tokens / self.parallel.tp, step.exchange)
        parts += [*self.head(requests if step.sequences is None else step.sequences), *self.stages(tokens)]
        return Pass((*parts, self.host(requests)))

    @cached_property
    def windows(self) -> tuple[float, ...]:
        """The windows of the model's layers; 0: all positions."""
        return tuple(dict.fromkeys(window for _, window, _ in self._mixers))

    @cached_property
    def _mixers(self) -> list[tuple[Mixer, float, int]]:
        """(mixer, window, how many layers), cross attention counted as one more."""
        spec, found = self.spec, []
        for layer in range(spec.num_layers):
            key = (spec.mixer(layer), float(parameters.attention_window(spec, layer) or 0))
            found += [key] * (2 if 0 < spec.num_encoder_layers <= layer else 1)
        distinct: list[tuple[Mixer, float]] = []
        for key in found:
            if key not in distinct:
                distinct.append(key)
        return [(*key, found.count(key)) for key in distinct]


def rank_load(experts: NDArray[np.integer], ranks: int, num_experts: int) -> tuple[Ints, Ints]:
    """Pairs and distinct experts of each rank, which holds a block of consecutive experts.

    Args:
        experts: of each token; numbers from ``num_experts`` on mean none. [tokens, top_k]

    Returns:
        pairs, distinct. [ranks]
    """
    loads = np.bincount(experts.ravel().astype(np.int64), minlength=num_experts)[:num_experts].reshape(ranks, -1)
    return loads.sum(axis=1), (loads > 0).sum(axis=1)
