"""A plan: a base scenario, what may be chosen, what it costs, and what each load must keep to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from moesim.documents import Document, read_yaml, validate
from moesim.errors import Fault, MoesimError, ScenarioError
from moesim.scenario.load import ScenarioFile, load_scenario
from moesim.scenario.serving.schema import Quantity, SloSpec
from moesim.studies.capacity.faults import faults_of
from moesim.units import parse

Loaded = TypeVar("Loaded")
MAX_CONFIGURATIONS = 20_000
HOURS_PER_YEAR = 8760.0
Money = Annotated[str, Quantity("money", "1599 USD")]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Option(_Spec):
    """One way to fill a choice: the settings that it makes, and what it costs."""

    settings: dict[str, Any] = Field(default_factory=dict, description="of the scenario, by dotted key")
    usd: Money | None = Field(None, description="to buy it, once for each machine")
    usd_per_gpu_hour: Annotated[float, Field(ge=0, le=1e4)] | None = Field(None, description="rent of each GPU")
    most_gpus: Annotated[int, Field(ge=1)] | None = Field(None, description="so many can be had")
    price: str = Field("", description="where the price comes from; empty: assumed")


class LoadSpec(_Spec):
    """One load: settings that describe its requests, and its limits."""

    settings: dict[str, Any] = Field(default_factory=dict, description="as in {arrivals.rate: 10 /s}")
    slo: SloSpec


class Plan(_Spec):
    """What ``moesim plan`` reads."""

    question: str = Field("", description="what the plan is to answer")
    scenario: str = Field(description="the base scenario, relative to this file; with serving: a fleet, else a desktop")
    choices: dict[str, Annotated[dict[str, Option], Field(min_length=1)]] = Field(
        default_factory=dict, description="what may be chosen -> its options; one of each is taken"
    )
    loads: Annotated[dict[str, LoadSpec], Field(min_length=1)]
    most_replicas: Annotated[int, Field(ge=1, le=4096)] = 64
    most_gpus: Annotated[int, Field(ge=1, le=65_536)] = 1024
    years: Annotated[float, Field(gt=0, le=30)] = Field(3.0, description="that what is bought is written off over")
    hours_per_day: Annotated[float, Field(gt=0, le=24)] = Field(24.0, description="that what is bought is used")
    usd_per_kwh: Annotated[float, Field(ge=0, le=10)] = Field(0.15, description="power of what is bought (assumed)")
    explore: Annotated[float, Field(ge=1, le=10)] = Field(
        1.3, description="also simulate what costs up to so many times the best, for the trade-off"
    )
    most_simulations: Annotated[int, Field(ge=1, le=100_000)] = 400


@dataclass(frozen=True)
class Configuration:
    """One option of every choice. ``usd``: to buy; ``usd_per_gpu_hour``: rent, None: the card's."""

    options: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, Any], ...]
    usd: float
    usd_per_gpu_hour: float | None
    most_gpus: int | None
    prices: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its options."""
        return " · ".join(option for _, option in self.options) or "as it is"


@dataclass(frozen=True)
class LoadedPlan:
    """A checked plan, and the scenario that it starts from."""

    plan: Plan
    document: Document
    base: ScenarioFile
    path: Path


def load_plan(path: Path) -> LoadedPlan:
    """Read and check a plan: its own keys, the base scenario, and every option's and load's settings on it.

    Raises:
        FileError, ScenarioError: with every fault at once.
    """
    document = read_yaml(path, ScenarioError)
    plan, faults = _gathered(lambda: validate(document, Plan, ScenarioError))
    named = document.data.get("scenario") if isinstance(document.data, dict) else None
    base = None
    if isinstance(named, str) and (path.parent / named).resolve() == path.resolve():
        faults.append(Fault(document.place(("scenario",)), "names this plan itself", "name the scenario to start from"))
    elif isinstance(named, str):
        base, more = _gathered(lambda: load_scenario(path.parent / named))
        faults += more
    faults += faults_of(document, base)
    if plan is not None and (count := math.prod(map(len, plan.choices.values()))) > MAX_CONFIGURATIONS:
        told = f"{count} combinations, and {MAX_CONFIGURATIONS} is the most"
        faults.append(Fault(document.place(("choices",)), told, "fewer options"))
    if faults:
        raise ScenarioError(faults)
    assert plan is not None
    assert base is not None
    return LoadedPlan(plan, document, base, path)


def _gathered(load: Callable[[], Loaded]) -> tuple[Loaded | None, list[Fault]]:
    """What is loaded, or its faults."""
    try:
        return load(), []
    except MoesimError as error:
        return None, list(error.faults)


def configurations(plan: Plan) -> Iterator[Configuration]:
    """Every combination of options."""
    for names in product(*plan.choices.values()):
        options = tuple(zip(plan.choices, names, strict=True))
        taken = [plan.choices[choice][name] for choice, name in options]
        settings = {key: value for option in taken for key, value in option.settings.items()}
        rents = [option.usd_per_gpu_hour for option in taken if option.usd_per_gpu_hour is not None]
        stocks = [option.most_gpus for option in taken if option.most_gpus is not None]
        yield Configuration(
            options=options,
            settings=tuple(settings.items()),
            usd=sum(parse(option.usd, "money") for option in taken if option.usd is not None),
            usd_per_gpu_hour=sum(rents) if rents else None,
            most_gpus=min(stocks) if stocks else None,
            prices=tuple(option.price or "assumed" for option in taken if option.usd or option.usd_per_gpu_hour),
        )


def slo_settings(slo: SloSpec) -> dict[str, Any]:
    """A load's limits as settings of a serving scenario."""
    return {f"serving.slo.{key}": value for key, value in slo.model_dump().items() if value is not None}
