"""Fitting constants: ``min over x of mean rho(log model - log measured) + (pull |x - x0|)^2``, x = log constants.

rho is soft L1 with scale 0.1, so that a few rows of another regime don't bend the rest. The pull keeps constants that
the rows don't determine: towards the class's where the class is known, the stronger the fewer shapes there are, as if
the class were one more shape. Deterministic: fixed start, no random numbers but a seeded choice of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.costs.fitted import Floats, Form, Peaks, Work
from moesim.errors import FileError

SCALE = 0.1
#: Most rows of a group that a fit looks at.
ROWS = 4000
#: Strength of the pull: residual spread over spread of constants between GPUs, both as logarithms.
PULL = 0.1 / 0.15
_WEAK = 0.002


@dataclass(frozen=True)
class Fitted:
    """Fitted constants, and the names of those on which the rows have no bearing."""

    constants: dict[str, float]
    assumed: list[str]


@dataclass(frozen=True)
class Sample:
    """Measured rows of one form, stack and GPU. ``shape``: a number for each row's shape. [rows]"""

    work: Work
    peaks: Peaks
    seconds: Floats
    shape: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.bool_]) -> Sample:
        """Some of the rows."""
        work = {name: values[chosen] for name, values in self.work.items()}
        return Sample(work, self.peaks, self.seconds[chosen], self.shape[chosen])


def fit_constants(form: Form, samples: Sequence[Sample], towards: Mapping[str, float] | None = None) -> Fitted:
    """The constants that fit the samples (several GPUs: those of the class).

    Args:
        towards: the class's constants.

    Raises:
        FileError: SciPy is not installed.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise FileError.of("fit", "needs SciPy, which is not installed", "pip install 'moesim[tables]'") from None
    samples = [_thinned(sample) for sample in samples]
    names = [constant.name for constant in form.constants]
    low, high = (np.log([getattr(c, side) for c in form.constants]) for side in ("low", "high"))
    centre = np.log([constant.start for constant in form.constants])
    if towards is not None:
        centre = np.log([towards[name] for name in names])
    shapes = max(len(np.unique(sample.shape)) for sample in samples)
    pull = _WEAK if towards is None else PULL * SCALE / np.sqrt(shapes)
    measured = [np.log(sample.seconds) for sample in samples]
    rows = sum(len(values) for values in measured)

    def residuals(logs: Floats) -> Floats:
        constants = dict(zip(names, np.exp(logs), strict=True))
        parts = [
            _soft(np.log(form.seconds(sample.work, sample.peaks, constants)) - values)
            for sample, values in zip(samples, measured, strict=True)
        ]
        return np.concatenate([*parts, np.sqrt(rows) * pull * (logs - centre)])

    start = np.clip(centre, low + 1e-6, high - 1e-6)
    found = least_squares(residuals, start, bounds=(low, high), max_nfev=60)
    moved = np.abs(found.jac[: -len(names)]).max(axis=0) > 1e-9
    assumed = [name for name, has_bearing in zip(names, moved, strict=True) if not has_bearing]
    return Fitted(dict(zip(names, np.exp(found.x).tolist(), strict=True)), assumed)


def _soft(difference: Floats) -> Floats:
    """Square root of the soft-L1 loss, with the sign: its square is the loss."""
    loss = 2 * (np.sqrt(1 + (difference / SCALE) ** 2) - 1)
    return np.asarray(SCALE * np.sign(difference) * np.sqrt(loss))


def _thinned(sample: Sample) -> Sample:
    rows = len(sample.seconds)
    if rows <= ROWS:
        return sample
    random = np.random.Generator(np.random.PCG64(20260000 + rows))
    chosen = np.zeros(rows, dtype=bool)
    chosen[random.choice(rows, ROWS, replace=False)] = True
    return sample.rows(chosen)
