"""Does a configuration fit at all, what does it cost, and what do the bounds say? Nothing is simulated here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import MoesimError
from moesim.hardware import GpuSpec
from moesim.scenario import load_scenario
from moesim.scenario.build import build
from moesim.scenario.load import ScenarioFile
from moesim.scenario.serving.build import build_serving
from moesim.studies.capacity.bounds import serving_bounds
from moesim.studies.points import overrides_of
from moesim.traces.trace import DECODE
from moesim.units import parse


@dataclass(frozen=True)
class Question:
    """A configuration under a load: settings on the base scenario, and the load's limit on time per token."""

    base: Path
    settings: tuple[tuple[str, Any], ...]
    tpot: str | None
    share: float


@dataclass(frozen=True)
class Survey:
    """What is known without simulating.

    Attributes:
        cut: why it can't be an answer; "" where it may be one.
        fits: whether it can be run.
        gpus: of one replica (all that don't grow with replicas: those that only decode, ``fixed_gpus``).
        usd_per_gpu_hour: the card's rent, None where it has none; rent: where that is from; watts: of one GPU at its
            limit.
        replicas: at least so many.
    """

    cut: str
    fits: bool
    gpus: int = 1
    fixed_gpus: int = 0
    usd_per_gpu_hour: float | None = None
    watts: float = 0.0
    replicas: int = 1
    rent: str = ""


def survey(question: Question) -> Survey:
    """Build it, and look."""
    try:
        file = load_scenario(question.base, overrides_of(question.settings))
        return _of_serving(file) if file.scenario.serving is not None else _of_desktop(file, question)
    except MoesimError as error:
        first = error.faults[0]
        return Survey(cut=f"{first.place.rpartition(': ')[2]}: {first.message}", fits=False)


def _of_serving(file: ScenarioFile) -> Survey:
    built = build_serving(file)
    bounds, asked = serving_bounds(built), built.serving.slo.share
    cut = ""
    if bounds.good_share < asked:
        cut = f"at most {bounds.good_share:.1%} of requests can be within the limits, however many replicas"
    limits, gpus = built.setup.limits, built.parallel.gpus
    return Survey(
        cut=cut,
        fits=True,
        gpus=gpus,
        fixed_gpus=gpus * limits.decoders,
        usd_per_gpu_hour=rent_of(built.gpu),
        watts=built.gpu.tdp.value if built.gpu.tdp else 0.0,
        replicas=bounds.replicas,
        rent=_told(built.gpu),
    )


def _of_desktop(file: ScenarioFile, question: Question) -> Survey:
    """No policy makes a decode step faster than the GPU's work outside of routed experts."""
    built = build(file)
    setup, gpu = built.setup, built.parts.node.gpu
    steps, times = setup.visits.steps, setup.times
    layers = setup.visits.num_layers
    visits = (times.before.total_s + times.shared.total_s).reshape(steps.num_steps, layers).sum(axis=1)
    step_s = (visits + times.after.total_s)[steps.phase == DECODE]
    cut = ""
    if question.tpot is not None and len(step_s) and float(np.min(step_s)) > parse(question.tpot, "time"):
        cut = f"a decode step takes {float(np.min(step_s)):.3g} s at least, with every expert on the GPU"
    watts = gpu.tdp.value if gpu.tdp else 0.0
    return Survey(cut=cut, fits=True, usd_per_gpu_hour=None, watts=watts)


def rent_of(gpu: GpuSpec) -> float | None:
    """USD per hour: the middle of the range on the card; None where it has none."""
    rents = [rent.value for rent in (gpu.price.cloud_low, gpu.price.cloud_high) if rent is not None]
    return 3600 * sum(rents) / len(rents) if rents else None


def _told(gpu: GpuSpec) -> str:
    """Where a card's rent is from."""
    rents = [rent for rent in (gpu.price.cloud_low, gpu.price.cloud_high) if rent is not None]
    return " and ".join(f"{3600 * rent.value:.2f} ({rent.source}; {rent.kind})" for rent in rents)
