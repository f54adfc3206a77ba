"""The neutral ``.npz``: ``experts``, ``sequence``, ``position``, sometimes ``weights`` and ``phase``; ``meta`` as JSON.

``experts`` is a signed integer array [tokens, layers, top_k] with -1 where nothing was recorded, ``weights`` a float
array of that shape, the others are [tokens]; ``phase`` is 0 for prefill and 1 for decode. Other arrays are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import FileError, TraceError
from moesim.traces.array_files import Array, read_npz, text_of
from moesim.traces.card import Domain
from moesim.traces.importers._routing import PHASES, PhaseName, Routing, imported_trace
from moesim.traces.trace import RoutingTrace

_REQUIRED = ("experts", "sequence", "position", "meta")
_OWN_FIELDS = ("model", "source", "licence", "phase")


def import_neutral(path: Path, *, phase: PhaseName | None = None, num_experts: int | None = None) -> RoutingTrace:
    """A trace from the neutral ``.npz``.

    From ``meta`` come ``model``, ``num_experts``, ``expert_bytes_per_layer``, ``moe_layer_indices`` (else the layers
    are numbered from 0), ``licence``, ``source``, and ``sequences``: one entry per request, whose ``dataset`` (else
    ``category``) is the domain. What else it says in words goes into the card's notes.

    Args:
        path: the file.
        phase: the phase of all tokens, where neither an array nor ``meta`` ("decode only ...") says it.
        num_experts: routed experts per layer, where ``meta`` doesn't say it.

    Raises:
        FileError: missing, damaged, or not of this format.
        TraceError: a missing option, or content that is wrong.
    """
    arrays, place = read_npz(path), str(path)
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise FileError.of(place, f"has no array {missing[0]!r}", "the neutral format has " + ", ".join(_REQUIRED))
    meta = _meta(text_of(arrays, "meta", place), place)
    experts = arrays["experts"]
    if experts.ndim != 3 or experts.dtype.kind != "i":
        told = f"must be signed integers [tokens, layers, top_k] (got {experts.dtype} {list(experts.shape)})"
        raise TraceError.of(f"{place}: experts", told)
    size = num_experts if num_experts is not None else meta.get("num_experts")
    if not isinstance(size, int):
        raise TraceError.of(place, "does not say how many experts a layer has", "give the option num_experts")
    request = arrays["sequence"]
    domains, domain = _domains(meta, request)
    routing = Routing(
        experts=experts,
        request=request,
        position=arrays["position"],
        phase=_phase(arrays, meta, phase, place),
        weights=arrays.get("weights"),
        more={"domain": domain},
    )
    return imported_trace(routing, place, size, name=path.stem, domains=domains, **_card_fields(meta, place))


def _meta(text: str, place: str) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError.of(f"{place}: meta", f"is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise FileError.of(f"{place}: meta", "must be a JSON object")
    return meta


def _phase(arrays: dict[str, Array], meta: dict[str, Any], option: PhaseName | None, place: str) -> Array:
    if "phase" in arrays:
        if option is not None:
            raise TraceError.of(place, "says the phase of each token itself", "leave out the option phase")
        return arrays["phase"]
    said = str(meta.get("phase", "")).partition(" only")
    name = option or (said[0] if said[1] else "")
    if name not in PHASES:
        raise TraceError.of(place, "does not say the phase of its tokens", "give the option phase: prefill or decode")
    return np.full(len(arrays["experts"]), PHASES[name], np.uint8)


def _domains(meta: dict[str, Any], request: Array) -> tuple[list[Domain], Array | None]:
    """The domains, and each token's index into them; nothing where ``meta`` doesn't describe each request."""
    described = meta.get("sequences")
    ids, which = np.unique(request, return_inverse=True)
    if not isinstance(described, list) or len(described) != len(ids):
        return [], None
    entries = [entry if isinstance(entry, dict) else {} for entry in described]
    names = [str(entry.get("dataset") or entry.get("category") or "") for entry in entries]
    if not all(names):
        return [], None
    known = sorted(set(names))
    indices = np.array([known.index(name) for name in names], np.int16)
    return [Domain(name=name) for name in known], indices[which]


def _card_fields(meta: dict[str, Any], place: str) -> dict[str, Any]:
    fields: dict[str, Any] = {name: str(meta.get(name, "")) for name in ("model", "source", "licence")}
    for name, key in (("expert_bytes", "expert_bytes_per_layer"), ("moe_layer_indices", "moe_layer_indices")):
        if (values := meta.get(key)) is not None:
            if not (isinstance(values, list) and all(type(value) is int for value in values)):
                raise TraceError.of(f"{place}: meta: {key}", "must be a list of whole numbers, one per layer")
            fields[name] = values
    said = {key: value for key, value in meta.items() if isinstance(value, str) and key not in _OWN_FIELDS}
    fields["notes"] = [f"{key}: {text}" for key, text in said.items()]
    return fields
