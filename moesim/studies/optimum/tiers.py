"""In which tier and in how many bits each expert is kept: least seconds at a given quality, beside a simple rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moesim.costs.node_times import form_times
from moesim.errors import MoesimError
from moesim.models import parameters
from moesim.models.precision import Precision, get_precision
from moesim.optimal.tiers import Choices, allocate, total, used
from moesim.policies.tables import expert_column
from moesim.scenario.build import Built
from moesim.studies.optimum.found import Found, Solution, Subject, finding

Floats = NDArray[np.float64]
TIERS = ("gpu", "host", "flash")
#: What may be chosen: 16, 8, 4, 3 and 2 bits.
PRECISIONS = ("bf16", "int8", "int4", "int3", "int2")
RULE = (
    "every expert stays where it is put and is brought up for each lookup (no caching); the error is at most that of "
    "all experts in {quality}"
)
#: Without a table: the error of b bits falls as 4^-b (uniform rounding), for each activation. Assumed.
THUMB = "4^-bits for each activation (assumed; --errors FILE gives measured ones)"


def solve(subject: Subject) -> Iterator[Found]:
    """The allocation, and the same quality with one precision and the most used experts highest."""
    built, wanted = subject.run.built, subject.wanted
    if wanted.quality not in PRECISIONS:
        raise MoesimError.of("--quality", f"unknown precision {wanted.quality!r}", "one of " + ", ".join(PRECISIONS))
    choices, uses = _choices(subject)
    found = allocate(choices, unit="s", time_limit_s=wanted.time_limit_s)
    option = _unused_aside(choices, found.option, uses, PRECISIONS.index(wanted.quality))
    simple = _most_used_first(choices, uses, PRECISIONS.index(wanted.quality))
    names = [PRECISIONS[number % len(PRECISIONS)] for number in option]
    counts = np.bincount(option, minlength=len(TIERS) * len(PRECISIONS)).reshape(len(TIERS), -1)
    figures: dict[str, float | str | None] = {
        f"experts in {tier}": ", ".join(f"{n} {name}" for n, name in zip(row, PRECISIONS, strict=True) if n) or "none"
        for tier, row in zip(TIERS, counts.tolist(), strict=True)
    }
    figures["error proxy"] = str(wanted.errors) if wanted.errors else THUMB
    capacities = ("GPU bytes", "host bytes", "error")
    shares = used(choices, option) / np.where(choices.capacity > 0, choices.capacity, 1.0)
    figures["used"] = ", ".join(f"{share:.1%} of {name}" for name, share in zip(capacities, shares, strict=True))
    told = finding(
        "tiers",
        "the least seconds of transfers and experts for this workload, over tiers and bit-widths of each expert",
        RULE.format(quality=wanted.quality),
        found.answer,
        ours=None if simple is None else total(choices, simple),
        ours_name=f"all {wanted.quality}, the most used on the GPU",
        figures=figures,
    )
    table = "layer,expert,precision\n" + "".join(
        f"{key // built.parts.model.num_experts},{key % built.parts.model.num_experts},{name}\n"
        for key, name in enumerate(names)
    )
    yield Found(told, Solution("bit-widths.csv", table, "policies: {precision: {name: plan, file: FILE}}"))


def _choices(subject: Subject) -> tuple[Choices, NDArray[np.int64]]:
    """Seconds, bytes and error of every option, and activations of each expert."""
    built = subject.run.built
    visits, node = built.setup.visits, built.parts.node
    keys = built.parts.model.num_moe_layers * built.parts.model.num_experts
    if visits.num_keys != keys:
        raise MoesimError.of("policies.precision", "experts are stored in bit-planes", "precision: uniform")
    uses = np.bincount(visits.activation_key, minlength=keys).astype(np.int64)
    precisions = [get_precision(name) for name in PRECISIONS]
    seconds = np.stack([_seconds(built, precision, keys) for precision in precisions], axis=-1)
    size = np.array([parameters.expert_bytes(built.parts.model, precision) for precision in precisions], dtype=float)
    error = _errors(subject, uses, keys)
    none, one = np.zeros((keys, len(precisions))), np.tile(size, (keys, 1))
    host = built.memory.host_total - built.memory.host_reserve
    if node.storage is None:
        seconds[2] = np.inf
    if built.setup.unified:
        seconds[1], host = np.inf, 1
    use = np.stack([np.concatenate([one, none, none], 1), np.concatenate([none, one, none], 1), np.tile(error, (1, 3))])
    budget = float(error[:, PRECISIONS.index(subject.wanted.quality)].sum()) * (1 + 1e-9)
    capacity = np.array([_gpu_bytes(built), host, budget], dtype=float)
    return Choices(np.concatenate(list(seconds), axis=1), use, capacity), uses


def _seconds(built: Built, precision: Precision, keys: int) -> Floats:
    """Of all lookups of each expert, by tier. [tiers, keys]"""
    setup, parts = built.setup, built.parts
    sizes = np.full(keys, parameters.expert_bytes(parts.model, precision), dtype=np.int64)
    times = form_times(parts.model, parts.precisions, precision, parts.node, setup.visits, sizes)
    lookups = np.bincount(setup.visits.lookup_key, minlength=keys)
    compute_s = np.bincount(setup.visits.lookup_key, weights=times.expert.total_s, minlength=keys)
    up_s = np.zeros(keys) if setup.unified else times.copy_s
    return np.stack([compute_s, compute_s + lookups * up_s, compute_s + lookups * (up_s + times.read_s)])


def _errors(subject: Subject, uses: NDArray[np.int64], keys: int) -> Floats:
    """Of each expert in each precision, over the workload. [keys, precisions]

    Raises:
        PolicyError: the table is wrong, or leaves out an expert.
    """
    path, model = subject.wanted.errors, subject.run.built.parts.model
    if path is None:
        bits = np.array([get_precision(name).bits_per_weight for name in PRECISIONS])
        return np.asarray(uses[:, None] * 4.0**-bits)
    columns = []
    for name in PRECISIONS:
        column = expert_column(path, name, model.num_moe_layers, model.num_experts, float)
        if len(column) < keys:
            raise MoesimError.of(str(path), f"names {len(column)} of {keys} experts", "a line for each expert")
        columns.append([column[key] for key in range(keys)])
    return np.asarray(uses[:, None] * np.array(columns).T)


def _most_used_first(choices: Choices, uses: NDArray[np.int64], precision: int) -> NDArray[np.int64] | None:
    """One precision for all; the most used experts on the GPU, the next in host memory. None where they do not fit."""
    option, left = np.zeros(len(uses), dtype=np.int64), choices.capacity.copy()
    for expert in np.argsort(-uses, kind="stable").tolist():
        for tier in range(len(TIERS)):
            chosen = tier * len(PRECISIONS) + precision
            need = choices.use[:2, expert, chosen]
            if np.isfinite(choices.cost[expert, chosen]) and (need <= left[:2]).all():
                option[expert] = chosen
                left[:2] -= need
                break
        else:
            return None
    return option


def _unused_aside(
    choices: Choices, option: NDArray[np.int64], uses: NDArray[np.int64], precision: int
) -> NDArray[np.int64]:
    """Experts that the workload never uses are free anywhere: in one precision, and in host memory while it lasts."""
    option, unused = option.copy(), np.flatnonzero(uses == 0)
    keep = np.flatnonzero(uses)
    left = choices.capacity - choices.use[:, keep, option[keep]].sum(axis=1)
    for expert in unused.tolist():
        for tier in (1, 2, 0):
            chosen = tier * len(PRECISIONS) + precision
            need = choices.use[:, expert, chosen]
            if np.isfinite(choices.cost[expert, chosen]) and (need <= left).all():
                option[expert] = chosen
                left -= need
                break
        else:
            left -= choices.use[:, expert, option[expert]]
    return option


def _gpu_bytes(built: Built) -> int:
    """What the GPU has for experts: as much as the scenario gives it, or all that is left."""
    plan, wanted = built.memory, built.file.scenario.memory.gpu_experts
    left = plan.gpu_total - plan.dense - plan.kv - plan.gpu_reserve
    return left if wanted == "auto" else plan.gpu_experts
