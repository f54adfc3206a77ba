"""Responses of vLLM or SGLang that were asked for routed experts, as JSON: one, a list, or (``.jsonl``) one on a line.

Where the expert ids stand, and how they are written, each [tokens, layers, top_k]:

- SGLang, ``/generate``: ``meta_info.routed_experts``; chat and completions: ``sglext.routed_experts``. Base64 of flat
  int32, or of what ``meta_info.routed_experts_dtype`` names, from position ``routed_experts_start_len`` on.
- vLLM: ``choices[i].routed_experts``, base64 of an ``.npy`` file. vLLM 0.21 gave nested lists instead, those of the
  prompt in ``prompt_routed_experts``.

The last generated token was never fed back, so it has no row. Rows before the prompt's end are prefill, others decode.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from moesim.errors import FileError, TraceError
from moesim.traces.array_files import Array, existing_file, npy_of
from moesim.traces.importers._requests import Numbers
from moesim.traces.importers._routing import Routing, imported_trace
from moesim.traces.importers.routed_experts_npy import expert_ids, moe_layers_of
from moesim.traces.trace import DECODE, PREFILL, RoutingTrace

_WIRE_TYPES = ("uint8", "uint16", "int16", "int32", "int64")


def import_routed_experts_json(
    path: Path,
    *,
    num_experts: PositiveInt,
    num_layers: PositiveInt | None = None,
    top_k: PositiveInt | None = None,
    prompt_tokens: Numbers | None = None,
    moe_layers: Numbers | None = None,
    model: str = "",
) -> RoutingTrace:
    """A trace with one request for each response (vLLM: for each of its choices).

    Args:
        path: the file.
        num_experts: routed experts per layer.
        num_layers: layers of the flat arrays that SGLang sends, dense ones included.
        top_k: experts per token of those arrays.
        prompt_tokens: the prompt length of each request, where the responses don't say it.
        moe_layers: which of the layers are MoE layers; None: all (engines give dense layers as zeros).
        model: name of the language model; "": as the first response says.

    Raises:
        FileError: missing or no JSON.
        TraceError: a response without routing, a missing option, or routing that contradicts itself.
    """
    place = str(path)
    shape = (num_layers, top_k)
    responses = list(_responses(path))
    requests = [request for where, response in responses for request in _requests(response, shape, where)]
    if not requests:
        raise TraceError.of(place, "holds no response")
    prompts = _prompts(requests, prompt_tokens, place)
    shapes = {request.experts.shape[1:] for request in requests}
    if len(shapes) > 1:
        raise TraceError.of(place, f"holds responses of different layers and top-k: {sorted(shapes)}")
    experts, layers = moe_layers_of(np.concatenate([request.experts for request in requests]), moe_layers, place)
    lengths = [len(request.experts) for request in requests]
    position = np.concatenate([np.arange(len(request.experts)) + request.start for request in requests])
    routing = Routing(
        experts,
        request=np.repeat(np.arange(len(requests)), lengths),
        position=position,
        phase=np.where(position < np.repeat(prompts, lengths), PREFILL, DECODE),
    )
    named = model or str(responses[0][1].get("model", ""))
    return imported_trace(routing, place, num_experts, name=path.stem, model=named, moe_layer_indices=layers)


@dataclass(frozen=True)
class _Request:
    """``experts`` [tokens, layers, top_k] from position ``start`` on; ``prompt_tokens`` None where it wasn't said."""

    experts: Array
    start: int
    prompt_tokens: int | None
    place: str


def _responses(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each response, and where it stands."""
    try:
        text = existing_file(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError.of(str(path), f"can't be read: {error}") from None
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), start=1)
        found = [(f"{path}:{number}", _json(line, f"{path}:{number}")) for number, line in lines if line.strip()]
    else:
        whole = _json(text, str(path))
        found = (
            [(f"{path}: [{i}]", one) for i, one in enumerate(whole)]
            if isinstance(whole, list)
            else [(str(path), whole)]
        )
    for place, response in found:
        if not isinstance(response, dict):
            raise TraceError.of(place, "must be a response, a JSON object")
        yield place, response


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError.of(place, f"is not JSON: {error}") from None


def _requests(response: Mapping[str, Any], shape: tuple[int | None, ...], place: str) -> Iterator[_Request]:
    meta, usage = _mapping(response, "meta_info"), _mapping(response, "usage")
    prompt = meta.get("prompt_tokens", usage.get("prompt_tokens"))
    start = meta.get("routed_experts_start_len", 0)
    if not isinstance(start, int) or not isinstance(prompt, int | None):
        raise TraceError.of(place, "prompt_tokens and routed_experts_start_len must be whole numbers")
    flat = meta.get("routed_experts", _mapping(response, "sglext").get("routed_experts"))
    if flat is not None:
        dtype = meta.get("routed_experts_dtype") or "int32"
        yield _Request(_decoded(flat, dtype, shape, place), start, prompt, place)
        return
    choices = response.get("choices")
    routed = [choice.get("routed_experts") for choice in choices or [] if isinstance(choice, dict)]
    if not routed or None in routed:
        raise TraceError.of(place, "has no routed_experts", "was the server asked for them (return_routed_experts)?")
    before = response.get("prompt_routed_experts")
    for one in routed:
        parts = [_decoded(part, "int32", shape, place) for part in (before, one) if part]
        yield _Request(_joined(parts, place), 0, prompt, place)


def _mapping(response: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = response.get(key)
    return value if isinstance(value, dict) else {}


def _decoded(value: Any, dtype: str, shape: tuple[int | None, ...], place: str) -> Array:
    """Expert ids [tokens, layers, top_k] out of nested lists, or base64 of an ``.npy`` file or of flat numbers."""
    if not isinstance(value, str):
        try:
            return expert_ids(np.array(value), f"{place}: routed_experts")
        except ValueError:
            raise TraceError.of(place, "routed_experts is no even [tokens, layers, top_k] list") from None
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TraceError.of(place, f"routed_experts is not base64: {error}") from None
    if data.startswith(b"\x93NUMPY"):
        return expert_ids(npy_of(data, f"{place}: routed_experts"), f"{place}: routed_experts")
    return _reshaped(data, dtype, shape, place)


def _reshaped(data: bytes, dtype: str, shape: tuple[int | None, ...], place: str) -> Array:
    if None in shape:
        told = "sends flat numbers, which don't say how many layers and experts per token there are"
        raise TraceError.of(place, told, "give the options num_layers (dense ones included) and top_k")
    if dtype not in _WIRE_TYPES:
        raise TraceError.of(place, f"unknown routed_experts_dtype {dtype!r}", "known: " + ", ".join(_WIRE_TYPES))
    layers, top_k = (int(size or 0) for size in shape)
    row_bytes = np.dtype(dtype).itemsize * layers * top_k
    if not data or len(data) % row_bytes:
        told = (
            f"routed_experts has {len(data)} bytes, no multiple of {row_bytes} ({layers} layers x top-{top_k} {dtype})"
        )
        raise TraceError.of(place, told, "are num_layers and top_k right?")
    return expert_ids(np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(-1, layers, top_k), place)


def _joined(parts: Sequence[Array], place: str) -> Array:
    if not parts or len({part.shape[1:] for part in parts}) > 1:
        raise TraceError.of(place, "routes prompt and output over different layers, or routes nothing")
    return np.concatenate(parts)


def _prompts(requests: Sequence[_Request], option: Sequence[int] | None, place: str) -> list[int]:
    said = [request.prompt_tokens for request in requests]
    known = [prompt for prompt in said if prompt is not None]
    if option is not None and known:
        raise TraceError.of(place, "says the prompt lengths itself", "leave out the option prompt_tokens")
    if option is not None and len(option) != len(requests):
        raise TraceError.of(place, f"{len(option)} prompt lengths for {len(requests)} requests")
    if option is None and len(known) < len(requests):
        where = requests[said.index(None)].place
        raise TraceError.of(where, "does not say how long its prompt is", "give the option prompt_tokens")
    return list(option) if option is not None else known
