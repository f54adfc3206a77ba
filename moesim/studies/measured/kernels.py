"""The tables ``gemm``, ``attention_decode`` and ``attention_prefill`` as work of their forms."""

from __future__ import annotations

from functools import partial

import numpy as np

from moesim.costs import attention, gemm
from moesim.costs.fitted import Floats, Form
from moesim.studies.measured.kinds import Group, Kind, Prepared, by_tokens, card_of, everything, one_slice, positive
from moesim.studies.measured.table import Ints, Table

_DTYPES = ("bfloat16", "float16", "half", "bf16", "fp16", "")
_KV_BYTES = {"fp8": 1.0}
_ATTENTION = ("batch", "seq", "heads", "kv_heads", "head_dim")


def prepare_gemm(table: Table, _stats: Table | None) -> Prepared:
    """The rows of ``gemm`` by GPU and backend."""
    prepared = Prepared()
    usable = positive(table, ("m", "n", "k"), prepared)
    for (gpu, backend, dtype), every in table.groups(("gpu", "backend", "dtype")):
        rows, card = every[usable[every]], card_of(gpu)
        if card is None:
            prepared.leave_out(f"gpu {gpu}: no hardware card", len(rows))
        elif dtype not in _DTYPES:
            prepared.leave_out(f"dtype {dtype}", len(rows))
        else:
            work = {name: table.number(name)[rows] for name in ("m", "n", "k")}
            naive = {"roofline": partial(gemm.naive_seconds, work)}
            prepared.groups.append(Group(gemm.FORM, gpu, card, backend or "vllm", rows, work, naive))
    return prepared


def attention_stack(kernel_source: str) -> str:
    """The kernel's name without its engine's: ``flash_attn_fa3``, ``flashinfer_trtllmdecode``, ..."""
    return kernel_source.partition("_")[2] or kernel_source or "flash_attn_fa3"


def prepare_attention(form: Form, table: Table, _stats: Table | None) -> Prepared:
    """The rows of an attention table by GPU and kernel."""
    prepared = Prepared()
    usable = positive(table, _ATTENTION, prepared)
    for (gpu, source, dtype, kv_dtype), every in table.groups(("gpu", "kernel_source", "dtype", "kv_dtype")):
        rows, card = every[usable[every]], card_of(gpu)
        if card is None:
            prepared.leave_out(f"gpu {gpu}: no hardware card", len(rows))
        elif dtype not in _DTYPES or kv_dtype not in (*_DTYPES, *_KV_BYTES):
            prepared.leave_out(f"dtype {dtype}, kv_dtype {kv_dtype}", len(rows))
        else:
            work = _attention_work(form, table, rows, _KV_BYTES.get(kv_dtype, 2.0))
            naive = {"roofline": partial(attention.naive_seconds, work)}
            stack = attention_stack(source) + (" fp8 kv" if kv_dtype in _KV_BYTES else "")
            prepared.groups.append(Group(form, gpu, card, stack, rows, work, naive))
    return prepared


def _attention_work(form: Form, table: Table, rows: Ints, kv_bytes: float) -> dict[str, Floats]:
    sizes = {name: table.number(name)[rows] for name in _ATTENTION}
    load = attention.even_prefill_load if form is attention.PREFILL else attention.even_decode_load
    width = sizes["head_dim"]
    return {
        **sizes,
        **load(sizes["batch"], sizes["seq"], table.number("window", 0.0)[rows]),
        "key_elements": 2 * width,
        "io_elements": 2 * width,
        "pair_flop": 4 * width,
        "kv_bytes": np.full(len(rows), kv_bytes),
    }


GEMM = Kind(
    name="gemm",
    columns=("gpu", "m", "n", "k", "latency_us"),
    prepare=prepare_gemm,
    shapes=("n", "k"),
    fits=everything,
    bucket_key="tokens",
    buckets=lambda table: by_tokens(table.number("m")),
    slices=one_slice,
    range_columns=("m", "n", "k"),
)
DECODE = Kind(
    name="attention_decode",
    columns=("gpu", *_ATTENTION, "latency_us"),
    prepare=partial(prepare_attention, attention.DECODE),
    shapes=("heads", "kv_heads", "head_dim", "window"),
    fits=everything,
    bucket_key="tokens",
    buckets=lambda table: by_tokens(table.number("batch")),
    slices=one_slice,
    range_columns=("batch", "seq", "heads", "kv_heads", "head_dim"),
)
PREFILL = Kind(
    name="attention_prefill",
    columns=("gpu", *_ATTENTION, "latency_us"),
    prepare=partial(prepare_attention, attention.PREFILL),
    shapes=("heads", "kv_heads", "head_dim", "window"),
    fits=everything,
    bucket_key="tokens",
    buckets=lambda table: by_tokens(table.number("batch") * table.number("seq")),
    slices=one_slice,
    range_columns=("batch", "seq", "heads", "kv_heads", "head_dim"),
)
