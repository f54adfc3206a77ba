"""Operations of ``moesim cost`` that runs price from cards: transfers, reads, CPU experts, heads, norms, and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from moesim.costs.cpu_expert import cpu_expert
from moesim.costs.flash import FlashReads, Path, flash_read
from moesim.costs.kernels import Kernels, Software
from moesim.costs.layers import Layers
from moesim.costs.part import Part
from moesim.costs.transfer import HostCopies, HostMemory, host_copy, kernel_slowdown
from moesim.errors import CardError, Fault, nearest
from moesim.hardware import load_cpu, load_gpu, load_link, load_storage
from moesim.hardware.fits import Fit, FitKey
from moesim.models import Precisions, get_precision, load_model

Value = float | str
Sizes = Mapping[str, Value]
Fits = Mapping[FitKey, Fit] | None
Found = tuple[list[Part], list[str]]


@dataclass(frozen=True)
class Priced:
    """An operation: sizes that it needs, those that it may be given with what they are otherwise, and its price."""

    needed: tuple[str, ...]
    optional: Mapping[str, Value]
    price: Callable[[Sizes, Fits], Found]
    #: Of ``optional``, names that take one of some words.
    words: Mapping[str, tuple[str, ...]]


def price_parts(operation: str, sizes: Sizes, fits: Fits = None) -> tuple[list[Part], Sizes, list[str]]:
    """The parts of an operation, all its sizes, and notes.

    Raises:
        CardError: a size is missing, unknown or wrong, or a card is unknown.
    """
    priced = PARTS[operation]
    check_sizes(sizes, priced.needed, priced.optional)
    full = {**priced.optional, **sizes}
    faults = [
        Fault(name, f"unknown {name} {full[name]!r}", nearest(str(full[name]), words))
        for name, words in priced.words.items()
        if full[name] not in words
    ]
    if faults:
        raise CardError(faults)
    parts, notes = priced.price(full, fits)
    return parts, full, notes


def check_sizes(sizes: Sizes, needed: Iterable[str], optional: Mapping[str, Value]) -> None:
    """Refuse unknown and missing sizes, text for numbers, and numbers below zero.

    Raises:
        CardError: with all faults.
    """
    names = [*needed, *optional]
    faults = [Fault("", f"unknown size {name!r}", nearest(name, names)) for name in sizes if name not in names]
    texts = {name for name, value in optional.items() if isinstance(value, str)} | set(_TEXTS)
    for name, value in sizes.items():
        if name in names and (name in texts) != isinstance(value, str):
            faults.append(Fault("", f"{name} must be {'text' if name in texts else 'a number'} (got {value!r})"))
        elif not isinstance(value, str) and not 0 <= value < np.inf:
            faults.append(Fault("", f"{name} must be a number, not below zero (got {value!r})"))
    if missing := [name for name in needed if name not in sizes]:
        may = ", ".join(f"{name} ({value})" if value != "" else name for name, value in optional.items())
        faults.append(Fault("", f"needs {', '.join(missing)}", f"give each as --NAME VALUE; may be given: {may}"))
    if faults:
        raise CardError(faults)


_TEXTS = ("gpu", "cpu", "link", "storage", "model", "precision")


def _number(sizes: Sizes, name: str) -> float:
    return float(sizes[name])


def _whole(sizes: Sizes, name: str) -> int:
    value = _number(sizes, name)
    if value < 1 or value != int(value):
        raise CardError.of("", f"{name} must be a whole number above zero (got {value:g})")
    return int(value)


def _transfer(sizes: Sizes, _: Fits) -> Found:
    gpu = load_gpu(str(sizes["gpu"])) if sizes["gpu"] else None
    if not sizes["link"] and gpu is None:
        raise CardError.of("", "needs link, or a gpu with its own", "--link pcie-4.0-x16")
    link = load_link(str(sizes["link"] or (gpu.link if gpu else "")))
    way = HostCopies(_memory(sizes["memory"]), _whole(sizes, "copies"), bool(sizes["both_ways"]))
    cpu = load_cpu(str(sizes["cpu"])) if sizes["cpu"] else None
    part = host_copy(_number(sizes, "bytes"), link, cpu, way)
    rate = _number(sizes, "bytes") / float(part.seconds)
    notes = [f"{rate / 1e9:.3g} GB/s of {link.bandwidth.value / 1e9:.3g} ({link.title})"]
    if gpu is not None and not gpu.unified_memory:
        notes.append(f"a kernel that streams the GPU's memory meanwhile takes {kernel_slowdown(link, gpu, way):.3f}x")
    return [part], notes


def _memory(word: Value) -> HostMemory:
    return next(memory for memory in get_args(HostMemory) if memory == word)


def _flash(sizes: Sizes, _: Fits) -> Found:
    drive = load_storage(str(sizes["storage"]))
    path: Path = next(known for known in get_args(Path) if known == sizes["path"])
    if not _number(sizes, "cached") <= 1:
        raise CardError.of("", f"cached is a share, at most 1 (got {sizes['cached']})")
    way = FlashReads(
        path,
        max(_number(sizes, "read_size"), 1.0),
        _whole(sizes, "depth"),
        _whole(sizes, "lanes"),
        _number(sizes, "cached"),
    )
    cpu = load_cpu(str(sizes["cpu"])) if sizes["cpu"] else None
    part = flash_read(_number(sizes, "bytes"), drive, cpu, way)
    rate = _number(sizes, "bytes") / max(float(part.seconds), 1e-30)
    return [part], [f"{rate / 1e9:.3g} GB/s of {drive.read_bandwidth.value / 1e9:.3g} ({drive.title})"]


def _cpu_expert(sizes: Sizes, _: Fits) -> Found:
    cpu = load_cpu(str(sizes["cpu"]))
    threads = _whole(sizes, "threads") if sizes["threads"] else None
    spec, stored = load_model(str(sizes["model"])), get_precision(str(sizes["precision"]))
    return [cpu_expert(_number(sizes, "tokens"), spec, stored, cpu, threads)], []


def _layers(sizes: Sizes, fits: Fits) -> Layers:
    spec = load_model(str(sizes["model"]))
    stored = get_precision(str(sizes["precision"]))
    software = Software(cuda_graphs=bool(sizes["graphs"]))
    kernels = Kernels(load_gpu(str(sizes["gpu"])), software, fits)
    return Layers(spec, Precisions(stored, stored), kernels, _whole(sizes, "tp"))


def _of_layer(pick: Callable[[Layers, np.ndarray[tuple[int, ...], np.dtype[np.float64]]], Sequence[Part]]) -> Priced:
    """An operation on one GPU, of a model's layer, for so many tokens."""

    def found(sizes: Sizes, fits: Fits) -> Found:
        parts = pick(_layers(sizes, fits), np.asarray(_number(sizes, "tokens")))
        if not parts:
            raise CardError.of("", f"{sizes['model']} has none")
        return list(parts), []

    return Priced(("gpu", "model", "tokens"), {"precision": "bf16", "tp": 1.0, "graphs": 1.0}, found, {})


def _dequantise(sizes: Sizes, fits: Fits) -> Found:
    kernels = Kernels(load_gpu(str(sizes["gpu"])), Software(cuda_graphs=bool(sizes["graphs"])), fits)
    return [kernels.dequantise(_number(sizes, "weights"), get_precision(str(sizes["precision"])))], []


PARTS: dict[str, Priced] = {
    "transfer": Priced(
        ("bytes",),
        {"link": "", "gpu": "", "cpu": "", "memory": "pinned", "copies": 1.0, "both_ways": 0.0},
        _transfer,
        {"memory": get_args(HostMemory)},
    ),
    "flash-read": Priced(
        ("bytes", "storage"),
        {"path": "whole", "read_size": 2.0**20, "depth": 4.0, "lanes": 1.0, "cached": 0.0, "cpu": ""},
        _flash,
        {"path": get_args(Path)},
    ),
    "cpu-expert": Priced(("cpu", "model", "tokens"), {"precision": "bf16", "threads": 0.0}, _cpu_expert, {}),
    "expert": _of_layer(lambda layers, tokens: layers.expert(tokens)),
    "shared-experts": _of_layer(lambda layers, tokens: layers.shared_experts(tokens)),
    "dense-ffn": _of_layer(lambda layers, tokens: layers.dense_ffn(tokens)),
    "router": _of_layer(lambda layers, tokens: layers.router(tokens)),
    "projections": _of_layer(lambda layers, tokens: layers.mixer(layers.spec.mixer(0), tokens)[:1]),
    "norms": _of_layer(lambda layers, tokens: layers.mixer(layers.spec.mixer(0), tokens)[1:]),
    "lm-head": _of_layer(lambda layers, tokens: [part for part in layers.head(tokens) if part.name != "sampling"]),
    "sampling": _of_layer(lambda layers, tokens: [part for part in layers.head(tokens) if part.name == "sampling"]),
    "dequantise": Priced(("gpu", "weights", "precision"), {"graphs": 0.0}, _dequantise, {}),
}
