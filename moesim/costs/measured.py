"""Prices corrected by a user's own measurements.

Where a shape was measured, ``t = form * ratio(size)``: the ratio of measured to computed time, interpolated between the
sizes that were measured, both as logarithms. Outside of them, and for other shapes, the form stands alone, with the
constants that were fitted to the same measurements; the fit's range says what is extrapolated.
"""

from __future__ import annotations

import numpy as np

from moesim.costs.fitted import Floats, Terms, Work
from moesim.hardware.fits import Profile


def corrected(terms: Terms, profile: Profile | None, work: Work) -> Terms:
    """Every term times the ratio of its row."""
    if profile is None:
        return terms
    factor = ratio(profile, work)
    return {name: np.asarray(seconds * factor) for name, seconds in terms.items()}


def ratio(profile: Profile, work: Work) -> Floats:
    """Measured to computed time of each row; 1 where nothing was measured."""
    names = (*profile.columns, profile.axis)
    *columns, at = np.broadcast_arrays(*(np.asarray(work[name], dtype=np.float64) for name in names))
    factor = np.ones(at.shape)
    for known in profile.measured:
        inside = (at >= known.at[0] * (1 - 1e-9)) & (at <= known.at[-1] * (1 + 1e-9))
        for column, value in zip(columns, known.shape, strict=True):
            inside = inside & np.isclose(column, value, rtol=1e-6)
        logs = np.interp(np.log(np.maximum(at, 1e-300)), np.log(known.at), np.log(known.ratio))
        factor = np.where(inside, np.exp(logs), factor)
    return factor
