"""The parts of one layer of a language model on one of ``tp`` GPUs, each as the kernels that compute it.

What engines fuse is one kernel here: queries, keys and values; gate and up; a norm with the addition before it; the
rotation of positions with the write to the KV cache. Every function broadcasts over its token counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.costs.fitted import Floats
from moesim.costs.kernels import Kernels
from moesim.costs.part import Part
from moesim.costs.products import (
    Product,
    ffn_products,
    head_shape,
    mixer_products,
    shared_width,
    state_elements,
)
from moesim.costs.step import Contexts
from moesim.models import ModelSpec, Precision, Precisions
from moesim.models.attention import Mixer

#: Bytes of each logit that a sampler moves: written in bf16, read, kept in fp32, and read once more for the choice.
_SAMPLED_BYTES = 2 + 2 + 4 + 4
#: Tokens of a prefill between two visits of a state mixer's state.
_STATE_CHUNK = 64


class Layers:
    """Prices of a model's parts in given precisions."""

    def __init__(self, spec: ModelSpec, precisions: Precisions, kernels: Kernels, tp: int = 1):
        self.spec, self.precisions, self.kernels, self.tp = spec, precisions, kernels, tp

    def mixer(self, mixer: Mixer, tokens: Floats) -> list[Part]:
        """All around attention: its projections, two norms, rotation and KV write."""
        products = mixer_products(mixer, self.spec.hidden_size, self.tp)
        moved = 2 * tokens * (2 * 4 * self.spec.hidden_size + 2 * products[0][0])
        return [self._products(products, tokens, "projections"), self.kernels.elementwise(moved, 3, "norms")]

    def attention(self, mixer: Mixer, window: float, contexts: Contexts) -> list[Part]:
        """Attention, or the update of a state mixer's states."""
        kv = self.precisions.kv_bytes_per_element
        decoding, expanding = (head_shape(mixer, self.tp, part) for part in (True, False))
        if decoding is None or expanding is None:
            return [self._state(mixer, contexts)]
        return [
            self.kernels.decode_attention(decoding, contexts.decode[window], kv),
            self.kernels.prefill_attention(expanding, contexts.prefill[window], kv),
        ]

    def dense_ffn(self, tokens: Floats) -> list[Part]:
        """The feed-forward network of a dense layer."""
        return self._network(self.spec.dense_intermediate_size or 0, tokens, "dense FFN")

    def shared_experts(self, tokens: Floats) -> list[Part]:
        """All shared experts of an MoE layer as one network; nothing where the model has none."""
        width = shared_width(self.spec)
        return self._network(width, tokens, "shared experts") if width else []

    def router(self, tokens: Floats) -> list[Part]:
        """Logits, and the choice of top-k with its softmax."""
        spec = self.spec
        logits = self.kernels.gemm(tokens, spec.num_experts, spec.hidden_size, self.precisions.dense, "router")
        return [logits, self.kernels.elementwise(4 * spec.num_experts * tokens, 1, "top-k")]

    def expert(self, tokens: Floats) -> list[Part]:
        """One routed expert alone, as an offloading runtime computes it: two products and the activation."""
        spec, stored = self.spec, self.precisions.experts
        return self._network(spec.moe_intermediate_size, tokens, "expert FFN", stored)

    def head(self, sequences: Floats) -> list[Part]:
        """Output head and sampling."""
        spec, tp = self.spec, self.tp
        logits = self.kernels.gemm(
            sequences, spec.vocab_size / tp, spec.hidden_size, self.precisions.dense, "output head"
        )
        parts = [logits, self.kernels.elementwise(_SAMPLED_BYTES * spec.vocab_size * sequences, 4, "sampling")]
        if tp > 1:
            num_bytes = 2 * spec.vocab_size * sequences
            parts.insert(1, self.kernels.collective("all_gather", num_bytes, tp, "all-gather of logits"))
        return parts

    def _network(self, width: int, tokens: Floats, name: str, stored: Precision | None = None) -> list[Part]:
        products = ffn_products(self.spec.hidden_size, width, self.spec.ffn_matrices, self.tp)
        inner = products[0][0] + products[1][1]  # read gate and up, write their product
        activation = self.kernels.elementwise(2 * tokens * inner, 1, "activations")
        return [self._products(products, tokens, name, stored), activation]

    def _products(
        self, products: Sequence[Product], tokens: Floats, name: str, stored: Precision | None = None
    ) -> Part:
        kept = stored or self.precisions.dense
        first, *rest = (self.kernels.gemm(tokens, n, k, kept, name) for n, k in products)
        for part in rest:
            first = first + part
        return first

    def _state(self, mixer: Mixer, contexts: Contexts) -> Part:
        """States read and written once for each decoding request, and once for every 64 tokens of a prefill."""
        state = state_elements(mixer, self.spec.hidden_size) / self.tp
        prefilled = contexts.tokens - contexts.decoding
        visits = contexts.decoding + np.ceil(prefilled / _STATE_CHUNK)
        return self.kernels.elementwise(2 * 4 * state * visits, 2, "state mixers")
