"""Cross-validation of the cost forms: every row predicted with constants that were fitted without its like.

- ``shapes``: without the row's shape (for MoE layers: its model and parallel degrees; for GEMMs n and k; for
  collectives the size), in :data:`FOLDS` folds of whole shapes.
- ``models`` (MoE layers): without the row's model, whatever its parallel degrees.
- ``gpus``: without the row's GPU, by the class's constants and the datasheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from moesim.costs.fitted import Floats
from moesim.hardware.fits import CLASS, FitKey, find
from moesim.studies.hardware_fit import Measured, all_constants, class_constants, measured_groups
from moesim.studies.measured.kinds import Group, Kind
from moesim.studies.measured.table import Ints, Table, group_codes
from moesim.studies.validate_measured import Prediction, Validation, score_table

FOLDS = 5
WAYS = ("shapes", "models", "gpus")


def cross_validate(table: Table, kind: Kind, stats: Table | None, way: str) -> Validation:
    """Score predictions that never saw the row's shape, model or GPU. Rows that fits don't use are counted."""
    used = kind.fits(table) & (table.number("latency_us") > 0)
    unused = int((~used).sum())
    table = table.rows(used)
    groups = measured_groups(table, kind, stats)
    outside = {"left out of the fits: more GPUs or nodes than they cover": unused} if unused else {}
    prediction = Prediction(np.full(table.size, np.nan), outside=outside)
    for name, formula in _naive(kind, table, stats):
        prediction.naive[name] = formula
    splits = _without_gpus(groups) if way == "gpus" else _without_shapes(groups, _labels(table, kind, way))
    for train, tests, use_class in splits:
        known = _class_only(train) if use_class else all_constants(train)
        for test in tests:
            _predict(prediction, test, known)
    return score_table(table, kind, prediction)


def _labels(table: Table, kind: Kind, way: str) -> Ints:
    """A number for what is left out together. [rows]"""
    columns = [table.number(column, 0.0) for column in kind.shapes]
    if way == "shapes" and kind.name == "moe_layer":
        columns += [table.number("tp", 1.0), table.number("ep", 1.0)]
    if kind.name == "collectives":  # each measurer's own sizes, so that a fold takes every fifth of them
        columns.insert(0, kind.slices(table)[0].astype(np.float64))
    return group_codes(columns)[0]


def _without_shapes(groups: Sequence[Measured], label: Ints) -> Iterator[tuple[list[Measured], list[Group], bool]]:
    for fold in range(FOLDS):
        train, tests = [], []
        for measured in groups:
            out = label[measured.group.rows] % FOLDS == fold
            if out.any():
                tests.append(_group_rows(measured.group, out))
            if not out.all():
                train.append(_measured_rows(measured, ~out))
        if train:
            yield train, tests, False


def _without_gpus(groups: Sequence[Measured]) -> Iterator[tuple[list[Measured], list[Group], bool]]:
    for card in sorted({measured.group.card for measured in groups}):
        train = [measured for measured in groups if measured.group.card != card]
        if train:
            yield train, [measured.group for measured in groups if measured.group.card == card], True


def _class_only(train: Sequence[Measured]) -> dict[FitKey, dict[str, float]]:
    return {(CLASS, *key): fitted.constants for key, fitted in class_constants(train).items()}


def _measured_rows(measured: Measured, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Measured:
    group = _group_rows(measured.group, chosen)
    return replace(measured, group=group, seconds=measured.seconds[chosen], shape=measured.shape[chosen])


def _group_rows(group: Group, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Group:
    work = {name: values[chosen] for name, values in group.work.items()}
    return replace(group, rows=group.rows[chosen], work=work, naive={})


def _predict(prediction: Prediction, test: Group, known: dict[FitKey, dict[str, float]]) -> None:
    found = find(known, test.form.operation, test.card, test.stack)
    if found is not None:
        constants, how = found
        prediction.seconds[test.rows] = test.form.seconds(test.work, test.peaks(), constants)
        prediction.constants.append((test.rows, how))


def _naive(kind: Kind, table: Table, stats: Table | None) -> Iterator[tuple[str, Floats]]:
    columns: dict[str, Floats] = {}
    for group in kind.prepare(table, stats).groups:
        for name, formula in group.naive.items():
            columns.setdefault(name, np.full(table.size, np.nan))[group.rows] = formula(group.peaks())
    yield from columns.items()
