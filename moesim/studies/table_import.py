"""``moesim hardware import table``: a user's own measurements as a card of fitted constants with a profile.

The constants are fitted as those of the shipped cards, pulled towards the class's or the GPU's own where those are
known. Beside them the card keeps, for every shape that was measured, the ratio of measured to computed time by size
(:mod:`moesim.costs.measured`): a run interpolates between what was measured, and says where it is outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moesim.errors import FileError, nearest
from moesim.hardware import load_gpu
from moesim.hardware.fits import Fit, FitCard, Measured, Profile, find, shipped_fits
from moesim.studies import hardware_fit
from moesim.studies.fitting import fit_constants
from moesim.studies.measured.catalogue import kind_of, read_measured, read_stats
from moesim.studies.measured.table import group_codes

#: Kind of table -> the sizes of its form that make a shape, and the one along which shapes are measured.
SHAPES: dict[str, tuple[tuple[str, ...], str]] = {
    "moe_layer": (("hidden", "width", "local_experts", "topk", "matrices"), "tokens"),
    "gemm": (("n", "k"), "m"),
    "collectives": (("gpus",), "bus_bytes"),
    "moe_all_to_all": (("hidden", "topk", "experts", "gpus"), "tokens"),
    "attention_decode": (("heads", "kv_heads", "head_dim", "batch"), "seq"),
    "attention_prefill": (("heads", "kv_heads", "head_dim", "batch"), "seq"),
}
_DIGITS = 4


@dataclass(frozen=True)
class Imported:
    """The cards of a table's GPUs, and what of the table lies outside of the forms' domain (reason -> rows)."""

    cards: Mapping[str, FitCard]
    outside: Mapping[str, int]


def import_table(path: Path, kind_name: str, stats: Path | None = None) -> Imported:
    """Fit every GPU of a table, and keep what was measured of its shapes.

    Raises:
        FileError: unknown kind, the file is wrong, or no row can be used.
    """
    kind = kind_of(kind_name)
    if kind_name not in SHAPES:
        raise FileError.of("--table", f"a table {kind_name!r} gives no constants", nearest(kind_name, SHAPES))
    table, statistics = read_measured(path, kind), read_stats(stats, path)
    groups = hardware_fit.measured_groups(table, kind, statistics)
    outside = dict(kind.prepare(table, statistics).outside)
    if not groups:
        why = "; ".join(outside) or "no row has a latency above zero"
        raise FileError.of(str(path), f"no row that the forms cover ({why})", "see `moesim validate measured`")
    fits: dict[str, list[Fit]] = {}
    for (operation, stack), members in sorted(hardware_fit.by_stack(groups).items()):
        for card in sorted({member.group.card for member in members}):
            own = [member for member in members if member.group.card == card]
            fits.setdefault(card, []).append(_fit(path, (operation, stack), own, SHAPES[kind_name]))
    cards = {
        name: FitCard(name=name, title=f"{load_gpu(name).title}, from {path.name}", fits=entries)
        for name, entries in fits.items()
    }
    return Imported(cards, outside)


def _fit(
    path: Path, key: tuple[str, str], members: Sequence[hardware_fit.Measured], shape: tuple[tuple[str, ...], str]
) -> Fit:
    group = members[0].group
    towards = find(shipped_fits(), key[0], group.card, key[1])
    samples = [member.sample() for member in members]
    fitted = fit_constants(group.form, samples, towards[0].constants if towards else None)
    entry = hardware_fit.fit_entry(key, members, fitted)
    return entry.model_copy(
        update={
            "source": f"fitted by moesim to {path.name}",
            "profile": _profile(members, entry.constants, *shape),
        }
    )


def _profile(
    members: Sequence[hardware_fit.Measured], constants: Mapping[str, float], columns: tuple[str, ...], axis: str
) -> Profile:
    """Medians of the ratio where a size of a shape was measured several times."""
    form = members[0].group.form
    works = [member.group.work for member in members]
    computed = [form.seconds(member.group.work, member.group.peaks(), constants) for member in members]
    ratio = np.concatenate([member.seconds / own for member, own in zip(members, computed, strict=True)])
    sizes = {name: np.concatenate([work[name] for work in works]) for name in (*columns, axis)}
    code, count = group_codes([sizes[name] for name in columns])
    found = []
    for shape in range(count):
        rows = np.flatnonzero(code == shape)
        places, of_row = np.unique(sizes[axis][rows], return_inverse=True)
        medians = [float(np.median(ratio[rows][of_row == place])) for place in range(len(places))]
        found.append(
            Measured(
                shape=[_rounded(sizes[name][rows[0]]) for name in columns],
                at=[_rounded(place) for place in places],
                ratio=[float(f"{value:.{_DIGITS}g}") for value in medians],
            )
        )
    return Profile(columns=list(columns), axis=axis, measured=found)


def _rounded(value: float) -> float:
    return float(f"{float(value):.12g}")
