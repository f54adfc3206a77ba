"""The table ``moe_activated``: one MoE layer of a named model by tokens *and* distinct experts, as the form takes it.

Nothing is fitted to it: it shows what the form and constants of other GPUs and models are worth.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from moesim.costs.fitted import Floats, Peaks, Work
from moesim.costs.moe_kernels import FIXED_TILES, moe_stack, tuned_shapes
from moesim.costs.moe_layer import FORM, naive_seconds
from moesim.models import ModelSpec, available_models, load_model
from moesim.studies.measured.kinds import Group, Kind, Prepared, by_tokens, capability, card_of, positive
from moesim.studies.measured.table import Ints, Table

_SIZES = ("tokens", "activated_experts")


@cache
def model_of(name: str) -> ModelSpec | None:
    """The card of a model as its publisher calls it, variants such as ``-Instruct-2507`` included; None if unknown."""
    wanted = name.rpartition("/")[2].lower()
    known = {card: (load_model(card).hf_id or card).rpartition("/")[2].lower() for card in available_models()}
    fits = [card for card, called in known.items() if wanted.startswith((called, card))]
    return load_model(max(fits, key=len)) if fits else None


def prepare(table: Table, _stats: Table | None) -> Prepared:
    """The table's rows by GPU and model."""
    prepared = Prepared()
    usable = positive(table, _SIZES, prepared)
    for (gpu, model, dtype), every in table.groups(("gpu", "model", "dtype")):
        rows, card, spec = every[usable[every]], card_of(gpu), model_of(model)
        if card is None:
            prepared.leave_out(f"gpu {gpu}: no hardware card", len(rows))
        elif spec is None or not spec.num_experts:
            prepared.leave_out(f"model {model}: no card of a model with experts", len(rows))
        elif dtype not in ("", "bfloat16"):
            prepared.leave_out(f"dtype {dtype}", len(rows))
        elif len(rows):
            prepared.groups.append(_group(table, rows, gpu, card, spec))
    return prepared


def _group(table: Table, rows: Ints, gpu: str, card: str, spec: ModelSpec) -> Group:
    stack = moe_stack("vllm", compute_capability=capability(card))
    slices = table.number("tp", 1.0)[rows]
    tokens, distinct = (table.number(name)[rows] for name in _SIZES)
    width = spec.moe_intermediate_size / slices
    tuned = tuned_shapes(stack, capability(card))
    is_tuned = np.array([(spec.num_experts, int(each)) in tuned for each in width])
    work = {
        "tokens": tokens,
        "topk": np.full(len(rows), float(spec.top_k)),
        "hidden": np.full(len(rows), float(spec.hidden_size)),
        "width": width,
        "matrices": np.full(len(rows), float(spec.ffn_matrices)),
        "local_experts": np.full(len(rows), float(spec.num_experts)),
        "ranks": np.ones(len(rows)),
        "gpus": slices,
        "pairs": tokens * spec.top_k,
        "distinct": distinct,
        "weight_bytes": np.full(len(rows), 2.0),
        "untuned": (np.full(len(rows), stack in FIXED_TILES) & ~is_tuned).astype(np.float64),
        "unpadded": np.full(len(rows), float("triton" in stack)),
    }
    naive = {
        "roofline, all experts": partial(_roofline, work, work["local_experts"]),
        "roofline, distinct experts": partial(_roofline, work, distinct),
    }
    return Group(FORM, gpu, card, stack, rows, work, naive)


def _roofline(work: Work, experts: Floats, peaks: Peaks) -> Floats:
    return naive_seconds(work, peaks, experts)


def _models(table: Table) -> tuple[Ints, tuple[str, ...]]:
    return table.texts["model"]


def _nothing(table: Table) -> NDArray[np.bool_]:
    """No row: the table is kept for validation."""
    return np.zeros(table.size, dtype=bool)


MOE_ACTIVATED = Kind(
    name="moe_activated",
    columns=("gpu", "model", *_SIZES, "latency_us"),
    prepare=prepare,
    shapes=("tokens",),
    fits=_nothing,
    bucket_key="tokens",
    buckets=lambda table: by_tokens(table.number("tokens")),
    slices=_models,
    range_columns=("tokens", "hidden", "width", "local_experts", "topk", "gpus"),
)
