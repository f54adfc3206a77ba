"""What each part of a language model's step costs on a device, vectorised over steps and lookups.

First form: every product reads its weights once and does 2 FLOP per parameter and token; attention reads the KV cache
of each request once a step; kernels of one operation follow each other. Weights that are stored narrow are widened
inside the kernel at no cost beyond their bytes.

Kernel counts are those of engines that fuse elementwise work into its neighbours, without CUDA graphs (assumed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.costs.roofline import Device, OpTime, roofline
from moesim.models import ModelSpec, parameters
from moesim.models.precision import Precision
from moesim.traces.steps import Steps

Ints = NDArray[np.int64]

ATTENTION_KERNELS = 6  # norm, QKV, rotary embedding with KV write, attention, output, norm
ROUTER_KERNELS = 2  # logits, top-k with softmax
FFN_KERNELS = 3  # gate and up, activation, down
HEAD_KERNELS = 3  # norm, logits, sampling


@dataclass(frozen=True)
class Context:
    """How much context each step's tokens see. One column for each attention window that the model has.

    Attributes:
        windows: positions that a layer sees back; None: all.
        attended: (query, key) pairs, the sum over the step's tokens. [steps, windows]
        read: KV positions read, each request's once. [steps, windows]
    """

    windows: tuple[int | None, ...]
    attended: Ints
    read: Ints


def context_of(steps: Steps, request: Ints, position: Ints, spec: ModelSpec) -> Context:
    """The context of each step, from the positions of its tokens.

    Args:
        request, position: of the trace's rows. [rows]
    """
    layers = range(spec.num_layers)
    windows = tuple(dict.fromkeys(parameters.attention_window(spec, layer) for layer in layers))
    step = np.repeat(np.arange(steps.num_steps), steps.tokens)
    seen = np.asarray(position)[steps.row].astype(np.int64) + 1
    group, of_row = np.unique(
        np.stack([step, np.asarray(request)[steps.row].astype(np.int64)]), axis=1, return_inverse=True
    )
    longest = np.zeros(group.shape[1], dtype=np.int64)
    np.maximum.at(longest, of_row.ravel(), seen)
    queries = np.bincount(of_row.ravel(), minlength=group.shape[1])
    attended, read = [], []
    for window in windows:
        near = seen if window is None else np.minimum(seen, window)
        kept = longest if window is None else np.minimum(longest, window + queries - 1)
        attended.append(np.bincount(step, weights=near, minlength=steps.num_steps))
        read.append(np.bincount(group[0], weights=kept, minlength=steps.num_steps))
    return Context(windows, np.stack(attended, axis=1).astype(np.int64), np.stack(read, axis=1).astype(np.int64))


@dataclass(frozen=True)
class Pricer:
    """Prices a language model's operations on one device.

    Attributes:
        spec: the language model.
        dense, experts: how weights are stored, outside and inside of routed experts.
        dense_device, expert_device: what the processor achieves in the arithmetic of each.
        kv_bytes_per_element: of the KV cache.
    """

    spec: ModelSpec
    dense: Precision
    experts: Precision
    dense_device: Device
    expert_device: Device
    kv_bytes_per_element: float = 2.0

    def attention(self, layer: int, tokens: Ints, context: Context) -> OpTime:
        """Norms, projections, scores and weighted sum of one layer. [steps]"""
        weights = parameters.attention_params(self.spec, layer)
        projections = self._product(weights, tokens, ATTENTION_KERNELS - 1)
        column = context.windows.index(parameters.attention_window(self.spec, layer))
        per_pair = parameters.attention_flops_per_token_per_kv_position(self.spec, layer)
        kv_bytes = parameters.kv_elements_per_token(self.spec, layer) * self.kv_bytes_per_element
        flop = per_pair * context.attended[:, column]
        return projections + roofline(flop, kv_bytes * context.read[:, column], 1, self.dense_device)

    def router(self, tokens: Ints) -> OpTime:
        """Router logits and top-k of one layer. [steps]"""
        return self._product(parameters.router_params(self.spec), tokens, ROUTER_KERNELS)

    def dense_ffn(self, tokens: Ints) -> OpTime:
        """The feed-forward network of a dense layer. [steps]"""
        return self._product(parameters.dense_ffn_params(self.spec), tokens, FFN_KERNELS)

    def shared_experts(self, tokens: Ints) -> OpTime:
        """All shared experts of one layer; zero where the model has none. [steps]"""
        weights = parameters.shared_params(self.spec)
        return self._product(weights, tokens, FFN_KERNELS if weights else 0)

    def output_head(self, sequences: Ints) -> OpTime:
        """Final norm, logits and sampling, for the last token of each sequence. [steps]"""
        return self._product(parameters.head_params(self.spec), sequences, HEAD_KERNELS)

    def expert(self, tokens: Ints) -> OpTime:
        """One routed expert for so many of the step's tokens. [lookups]"""
        weights = parameters.expert_params(self.spec)
        weight_bytes = self.experts.bytes_for(weights)
        moved = weight_bytes + self._activation_bytes(tokens)
        return roofline(2 * weights * tokens, moved, FFN_KERNELS, self.expert_device)

    def _product(self, weights: int, tokens: Ints, kernels: int) -> OpTime:
        return roofline(2 * weights * tokens, self.dense.bytes_for(weights), kernels, self.dense_device)

    def _activation_bytes(self, tokens: Ints) -> Ints:
        """An expert's input and output in bf16, and its inner activation written and read once."""
        return 2 * tokens * (2 * self.spec.hidden_size + 2 * self.spec.moe_intermediate_size)
