"""Samples of one case in a few numbers, and when they may not be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.microbench.schema import TimeStatistics

#: Raw samples kept in a result: all of them, or so many evenly apart.
KEPT_SAMPLES = 64
#: Spread (p90 - p10) over median above which a row is ``noisy``.
NOISY_SPREAD = 0.25
#: Share of the CPU time wanted, below which a row is ``contended``.
CONTENDED_SHARE = 0.9
#: Share of the machine's CPUs that others kept busy, above which a row is ``contended``: memory was theirs, too.
OTHERS_SHARE = 0.15


def summarised(samples_us: Sequence[float], warmup: int, batch: int) -> TimeStatistics:
    """Percentiles by linear interpolation; the standard deviation is of the population.

    Raises:
        ValueError: there are no samples, or impossible ones.
    """
    if not samples_us:
        raise ValueError("no samples")
    values = np.asarray(samples_us, dtype=np.float64)
    p10, p50, p90 = np.percentile(values, [10, 50, 90]).tolist()
    return TimeStatistics(
        n=len(values),
        warmup=warmup,
        batch=batch,
        min=_kept(values.min()),
        p10=_kept(p10),
        p50=_kept(p50),
        p90=_kept(p90),
        max=_kept(values.max()),
        mean=_kept(values.mean()),
        stdev=_kept(values.std()),
    )


def thinned(samples_us: Sequence[float]) -> list[float]:
    """At most :data:`KEPT_SAMPLES` of the samples, evenly apart, in order."""
    step = max(1.0, len(samples_us) / KEPT_SAMPLES)
    return [_kept(samples_us[int(index * step)]) for index in range(min(len(samples_us), KEPT_SAMPLES))]


def flags_of(time: TimeStatistics, cpu_share: float | None, others_share: float = 0.0) -> list[str]:
    """``noisy`` and ``contended``, where they apply.

    Args:
        cpu_share: of the CPU time that the row's threads wanted; None where it is not known.
        others_share: of the machine's CPUs that others kept busy meanwhile.
    """
    flags = ["noisy"] if time.p90 - time.p10 > NOISY_SPREAD * time.p50 else []
    short = cpu_share is not None and cpu_share < CONTENDED_SHARE
    return flags + (["contended"] if short or others_share > OTHERS_SHARE else [])


def _kept(value: float) -> float:
    return float(f"{value:.6g}")
