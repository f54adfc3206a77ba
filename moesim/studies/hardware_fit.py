"""``moesim hardware fit``: tables of measurements to a card of fitted constants, the same bytes every time.

First the class: one set of constants per operation and software stack over all GPUs of the tables. Then each GPU's
own, pulled towards the class's (:mod:`moesim.studies.fitting`). Only the constants are kept, never a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from moesim.costs.fitted import Floats, Form
from moesim.errors import FileError, nearest
from moesim.hardware import load_gpu
from moesim.hardware.fits import CLASS, Fit, FitCard, FitKey, Residuals, any_stack
from moesim.results.result import write_text
from moesim.studies.fitting import Fitted, Sample, fit_constants
from moesim.studies.measured.catalogue import kind_of, read_measured, read_stats
from moesim.studies.measured.kinds import Group, Kind
from moesim.studies.measured.table import Ints, Table, group_codes

_SOURCE = "fitted by moesim to the table {table}, measured by others ({licence})"
_LICENCES = {"collectives": "ai-dynamo/aiconfigurator, Apache-2.0; vidur, MIT"}
_DIGITS = 4


@dataclass(frozen=True)
class Measured:
    """One GPU's rows of one form and stack, from one table. ``seconds`` and ``shape`` are of ``group.rows``."""

    kind: Kind
    table: str
    group: Group
    seconds: Floats
    shape: Ints
    ranges: Mapping[str, tuple[float, float]]

    def sample(self) -> Sample:
        """As the fit takes it."""
        return Sample(self.group.work, self.group.peaks(), self.seconds, self.shape)


def measured_groups(table: Table, kind: Kind, stats: Table | None) -> list[Measured]:
    """The table's rows that fits use, by GPU and stack."""
    seconds = table.number("latency_us") * 1e-6
    usable = kind.fits(table) & (seconds > 0)
    shape, _ = group_codes([table.number(column, 0.0) for column in kind.shapes])
    groups = []
    for group in kind.prepare(table, stats).groups:
        keep = usable[group.rows]
        if not keep.any():
            continue
        rows, work = group.rows[keep], {name: values[keep] for name, values in group.work.items()}
        kept = Group(group.form, group.gpu, group.card, group.stack, rows, work, arithmetic=group.arithmetic)
        ranges = {name: _span(work, table, name, rows) for name in kind.range_columns}
        groups.append(Measured(kind, table.name, kept, seconds[rows], shape[rows], ranges))
    return groups


def _span(work: Mapping[str, Floats], table: Table, name: str, rows: Ints) -> tuple[float, float]:
    values = work[name] if name in work else table.number(name)[rows]
    return float(np.min(values)), float(np.max(values))


Key = tuple[str, str]


def by_stack(groups: Iterable[Measured]) -> dict[Key, list[Measured]]:
    """(operation, stack) -> its groups, one for each GPU."""
    together: dict[Key, list[Measured]] = {}
    for group in groups:
        together.setdefault((group.group.form.operation, group.group.stack), []).append(group)
    return together


def of_class(groups: Iterable[Measured]) -> dict[Key, list[Measured]]:
    """As :func:`by_stack`, and ``any``: the groups of all stacks of one variant."""
    stacks = by_stack(groups)
    together = dict(stacks)
    for (operation, stack), members in stacks.items():
        key = operation, any_stack(operation, stack)
        together[key] = [*together.get(key, []), *members]
    return together


def class_constants(groups: Sequence[Measured]) -> dict[Key, Fitted]:
    """Constants of each (operation, stack) over all GPUs, and of each (operation, ``any``) over its stacks."""
    return {
        key: fit_constants(members[0].group.form, [member.sample() for member in members])
        for key, members in sorted(of_class(groups).items())
    }


def gpu_constants(
    groups: Sequence[Measured], constants: Mapping[Key, Fitted]
) -> Iterator[tuple[str, Key, list[Measured], Fitted]]:
    """Each GPU's own constants: card, (operation, stack), the groups, the constants."""
    for key, members in sorted(by_stack(groups).items()):
        for card in sorted({member.group.card for member in members}):
            own = [member for member in members if member.group.card == card]
            samples = [member.sample() for member in own]
            yield card, key, own, fit_constants(own[0].group.form, samples, constants[key].constants)


def all_constants(groups: Sequence[Measured]) -> dict[FitKey, dict[str, float]]:
    """Every GPU's constants and the class's, as :func:`moesim.hardware.fits.find` looks them up."""
    constants = class_constants(groups)
    known = {(CLASS, *key): fitted.constants for key, fitted in constants.items()}
    return known | {(card, *key): fitted.constants for card, key, _, fitted in gpu_constants(groups, constants)}


def fit(
    tables: Mapping[str, Path], stats: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> dict[str, FitCard]:
    """Cards of fitted constants, by name: one for each GPU in the tables, and the class's.

    Args:
        tables: kind of table -> file.

    Raises:
        FileError: a file is wrong, or an extra package is missing.
    """
    groups: list[Measured] = []
    for name, path in sorted(tables.items()):
        progress(name)
        kind = kind_of(name)
        groups += measured_groups(read_measured(path, kind), kind, read_stats(stats, path))
    constants, members = class_constants(groups), of_class(groups)
    fits = {CLASS: [fit_entry(key, members[key], fitted) for key, fitted in sorted(constants.items())]}
    for card, key, own, fitted in gpu_constants(groups, constants):
        fits.setdefault(card, []).append(fit_entry(key, own, fitted))
    return {
        name: FitCard(name=name, title=_title(name), fits=sorted(entries, key=lambda fit: (fit.operation, fit.stack)))
        for name, entries in sorted(fits.items())
    }


def _title(name: str) -> str:
    return "GPUs without measurements" if name == CLASS else load_gpu(name).title


def fit_entry(key: Key, members: Sequence[Measured], fitted: Fitted) -> Fit:
    """A card's entry: rounded constants, with how far they are from the rows that they were fitted to."""
    form = members[0].group.form
    rounded = {name: _rounded(value) for name, value in fitted.constants.items()}
    errors = np.concatenate([_errors(form, member, rounded) for member in members])
    spans = [member.ranges for member in members]
    table = members[0].table
    return Fit.model_construct(
        operation=key[0],
        stack=key[1],
        constants=rounded,
        assumed=fitted.assumed,
        kind="measured",
        source=_SOURCE.format(table=table, licence=_LICENCES.get(table, "ai-dynamo/aiconfigurator, Apache-2.0")),
        gpus=sorted({member.group.gpu for member in members}),
        rows=len(errors),
        shapes=len(np.unique(np.concatenate([member.shape for member in members]))),
        fitted_range={name: (min(s[name][0] for s in spans), max(s[name][1] for s in spans)) for name in spans[0]},
        residuals=residuals(errors),
    )


def _errors(form: Form, member: Measured, constants: Mapping[str, float]) -> Floats:
    return form.seconds(member.group.work, member.group.peaks(), constants) / member.seconds - 1


def residuals(errors: Floats) -> Residuals:
    """Percentages over relative errors."""
    absolute = np.abs(errors) * 100
    return Residuals(
        mape=round(float(absolute.mean()), 1),
        median=round(float(np.median(absolute)), 1),
        p90=round(float(np.percentile(absolute, 90)), 1),
        bias=round(float(errors.mean() * 100), 1),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def write_fit_card(card: FitCard, form_of: Mapping[str, Form], path: Path) -> None:
    """Write a card as YAML: times in microseconds, shares as plain numbers."""
    write_text(path, fit_card_text(card, form_of))


def fit_card_text(card: FitCard, form_of: Mapping[str, Form]) -> str:
    """The YAML of a card."""
    entries = []
    for fit in card.fits:
        units = {constant.name: constant.unit for constant in form_of[fit.operation].constants}
        constants = {
            name: f"{value * 1e6:.{_DIGITS}g} us" if units[name] == "us" else value
            for name, value in fit.constants.items()
        }
        entry = {**fit.model_dump(), "constants": constants}
        if fit.profile is None:
            del entry["profile"]
        entry["fitted_range"] = {name: [_plain(low), _plain(high)] for name, (low, high) in fit.fitted_range.items()}
        entries.append(entry)
    content = {"name": card.name, "title": card.title, "fits": entries}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=200, default_flow_style=None)


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


def choose_card(cards: Mapping[str, FitCard], name: str) -> FitCard:
    """One of the cards that a fit gave.

    Raises:
        FileError: the tables have no such GPU.
    """
    if name not in cards:
        raise FileError.of("--gpu", f"the tables have no rows of {name!r}", nearest(name, cards))
    return cards[name]
