"""``moesim microbench fit``: a result to a machine's card. Deterministic: the same result gives the same bytes.

Each group of rows gets the constants that minimise the sum over fitted rows of ``rho(log model - log measured)``, rho
being soft L1 with scale 0.05, from a few fixed starts, and over constants of ``(PULL log(constant / start))^2``: too
little to move what the rows determine, but enough that the others have one value too, the same on every machine. Only
rows on the fit's side of the split that are right, quiet and uncontended are looked at. Constants are written with four
digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.errors import MicrobenchError
from moesim.hardware.fits import Residuals
from moesim.hardware.machine import MachineFit
from moesim.microbench.forms import Columns, Constants, Floats, Form
from moesim.microbench.models import group_key, model_of
from moesim.microbench.schema import Result, Row

SCALE = 0.05
PULL = 0.01
DIGITS = 4
_FEW = "fewer rows than constants, so that these are one choice of many"
#: Factors on the starting rates and times: fits of sums of terms have several valleys.
_STARTS = (1.0, 0.1, 10.0)


@dataclass(frozen=True)
class Fitted:
    """Constants, and those on which the rows have no bearing."""

    constants: dict[str, float]
    assumed: list[str]


def fit_rows(rows: Sequence[Row], source: str) -> list[MachineFit]:
    """The fits of all groups that have enough rows; sorted by benchmark and group.

    Args:
        source: what the constants' source says.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.fits and model_of(row) is not None:
            groups.setdefault(group_key(row), []).append(row)
    fits = []
    for (bench, group), members in sorted(groups.items()):
        members = sorted(members, key=lambda row: sorted(map(str, row.case.items())))
        model = model_of(members[0])
        assert model is not None
        columns, measured = model.columns(members), np.array([row.seconds for row in members])
        fitted = fit_form(model.form, columns, measured)
        errors = model.form.seconds(columns, fitted.constants) / measured - 1
        fits.append(
            MachineFit.model_construct(
                bench=bench,
                group=group,
                form=model.form.name,
                constants=fitted.constants,
                assumed=fitted.assumed,
                kind="measured",
                source=source if len(members) >= len(fitted.constants) else f"{source}; {_FEW}",
                rows=len(members),
                fitted_range={name: (float(x.min()), float(x.max())) for name, x in columns.items()},
                residuals=residuals(errors),
            )
        )
    return fits


def fit_form(form: Form, columns: Columns, measured: Floats) -> Fitted:
    """The constants that fit ``measured`` seconds, rounded as a card holds them. Independent of the rows' order."""
    from scipy.optimize import least_squares

    order = np.lexsort((*columns.values(), measured))
    columns, measured = {name: x[order] for name, x in columns.items()}, measured[order]
    names = [constant.name for constant in form.constants]
    low, high = (np.log([getattr(c, side) for c in form.constants]) for side in ("low", "high"))
    targets, usual = np.log(measured), np.log([constant.start for constant in form.constants])

    def residual(logs: Floats) -> Floats:
        seconds = form.seconds(columns, dict(zip(names, np.exp(logs), strict=True)))
        return np.concatenate([np.log(seconds) - targets, PULL * (logs - usual)])

    best = None
    for factor in _STARTS:
        start = np.log([c.start * (1.0 if c.dimension == "1" else factor) for c in form.constants])
        start = np.clip(start, low + 1e-6, high - 1e-6)
        found = least_squares(
            residual,
            start,
            jac="3-point",  # of two points, noise in the last digits would reach the constants' fourth
            bounds=(low, high),
            loss="soft_l1",
            f_scale=SCALE,
            xtol=1e-14,
            ftol=1e-15,
            gtol=1e-15,
            max_nfev=400,
        )
        if best is None or found.cost < best.cost * (1 - 1e-6):
            best = found
    assert best is not None
    bearing = np.abs(best.jac[: len(targets)]).max(axis=0) > 1e-3
    assumed = [name for name, has in zip(names, bearing, strict=True) if not has]
    return Fitted({name: rounded(value) for name, value in zip(names, np.exp(best.x), strict=True)}, assumed)


def rounded(value: float) -> float:
    """With the digits that a card keeps."""
    return float(f"{value:.{DIGITS}g}")


def residuals(errors: Floats) -> Residuals:
    """Percentages over relative errors."""
    absolute = np.abs(errors) * 100
    return Residuals(
        mape=round(float(absolute.mean()), 1),
        median=round(float(np.median(absolute)), 1),
        p90=round(float(np.percentile(absolute, 90)), 1),
        bias=round(float(errors.mean() * 100), 1),
    )


def require_rows(result: Result) -> None:
    """Refuses a result without a row that can be fitted.

    Raises:
        MicrobenchError: says how many rows there are, and why they are unfit.
    """
    if any(row.fits for row in result.rows):
        return
    flags = sorted({flag for row in result.rows for flag in row.flags})
    seen = ", ".join(flags) or "none"
    why = f"of {len(result.rows)} rows none is on the fit's side, checked and quiet (flags seen: {seen})"
    raise MicrobenchError.of("fit", why, "measure again on a quiet machine, or with --realtime")


def constants_by_group(fits: Sequence[MachineFit]) -> Mapping[tuple[str, str], Constants]:
    """(bench, group) -> constants."""
    return {(fit.bench, fit.group): fit.constants for fit in fits}


def predicted_seconds(row: Row, constants: Mapping[tuple[str, str], Constants]) -> float | None:
    """What a card says of a row; None where it has no constants for it."""
    model = model_of(row)
    known = None if model is None else constants.get(group_key(row))
    if model is None or known is None:
        return None
    return float(model.form.seconds(model.columns([row]), known)[0])
