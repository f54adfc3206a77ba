"""A bare ``.npy`` array of expert ids [tokens, layers, top_k], as vLLM's ``routed_experts`` saved with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from moesim.errors import TraceError
from moesim.traces.array_files import Array, read_npy
from moesim.traces.importers._requests import Numbers, request_columns
from moesim.traces.importers._routing import Routing, imported_trace
from moesim.traces.trace import RoutingTrace


def import_routed_experts_npy(
    path: Path,
    *,
    num_experts: PositiveInt,
    prompt_tokens: Numbers,
    request_tokens: Numbers | None = None,
    moe_layers: Numbers | None = None,
    model: str = "",
) -> RoutingTrace:
    """A trace from an array of any integer type; -1 where nothing was recorded.

    Args:
        path: the file.
        num_experts: routed experts per layer.
        prompt_tokens: how many tokens of each request are its prompt.
        request_tokens: how many tokens each request has; None: the file is one request.
        moe_layers: which of the array's layers are MoE layers; None: all (engines give dense layers as zeros).
        model: name of the language model.

    Raises:
        FileError: missing, damaged, or no ``.npy`` file.
        TraceError: no such array, or routing that doesn't fit the options.
    """
    place = str(path)
    experts, layers = moe_layers_of(expert_ids(read_npy(path), place), moe_layers, place)
    request, position, phase = request_columns(len(experts), prompt_tokens, request_tokens, place)
    routing = Routing(experts, request, position, phase)
    return imported_trace(routing, place, num_experts, name=path.stem, model=model, moe_layer_indices=layers)


def expert_ids(array: Array, place: str) -> Array:
    """The array itself, where it can be expert ids.

    Raises:
        TraceError: not integers, or not [tokens, layers, top_k].
    """
    if array.dtype.kind not in "iu" or array.ndim != 3 or 0 in array.shape:
        told = f"must be integers [tokens, layers, top_k], none of them 0 (got {array.dtype} {list(array.shape)})"
        raise TraceError.of(place, told)
    return array if array.dtype.kind == "i" and array.dtype.itemsize > 1 else array.astype(np.int32)


def moe_layers_of(experts: Array, moe_layers: Sequence[int] | None, place: str) -> tuple[Array, list[int]]:
    """The MoE layers of [tokens, layers, top_k], and their indices.

    Raises:
        TraceError: a layer that isn't there.
    """
    if moe_layers is None:
        return experts, list(range(experts.shape[1]))
    layers = sorted(set(moe_layers))
    if not layers or layers[-1] >= experts.shape[1]:
        told = f"has {experts.shape[1]} layers, moe_layers names {layers[-1:] or 'none'}"
        raise TraceError.of(place, told, "layers count from 0")
    return experts[:, layers], layers
