"""The parts that a scenario names: cards, trace and policies, each loaded and checked on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast

from moesim.costs.flash import FlashReads
from moesim.costs.node_times import USUAL, Ways
from moesim.costs.transfer import HostCopies
from moesim.errors import Fault, MoesimError, PolicyError, ScenarioError
from moesim.hardware import Node, build_node, load_network
from moesim.hardware.fits import Fit, FitKey, with_own
from moesim.models import ModelSpec, load_model
from moesim.models.precision import Precision, Precisions, get_precision
from moesim.policies import api
from moesim.policies.api import Policy
from moesim.policies.plug_ins import is_file
from moesim.scenario.load import ScenarioFile
from moesim.scenario.schema import NO_TRACE, PolicyChoice, Scenario
from moesim.scenario.workload import synthetic_for
from moesim.setup import Schedule, load_schedule
from moesim.traces import RoutingTrace, load_trace
from moesim.units import parse

Part = TypeVar("Part")


class Gathering:
    """Loads parts one by one and keeps their faults, so that all are told at once."""

    def __init__(self, file: ScenarioFile):
        self._file = file
        self._faults: list[Fault] = []

    def load(self, keys: Sequence[str], loader: Callable[[], Part]) -> Part:
        """A part; where it has faults, they are kept, placed at ``keys``, and :meth:`stop` must come before its use."""
        try:
            return loader()
        except MoesimError as error:
            self._faults.extend(self._file.fault(keys, fault) for fault in error.faults)
            return cast(Part, None)

    def stop(self) -> None:
        """Raise what was found, if anything was."""
        if self._faults:
            raise ScenarioError(self._faults)


@dataclass(frozen=True)
class Parts:
    """What a scenario names. ``policies``: by their key in the scenario; ``schedule``: where one is replayed; ``ways``:
    how experts move.
    """

    model: ModelSpec
    node: Node
    source: RoutingTrace
    policies: Mapping[str, Policy]
    precisions: Precisions
    schedule: Schedule | None = None
    ways: Ways = USUAL


def load_parts(file: ScenarioFile) -> Parts:
    """Load every part of a scenario.

    Raises:
        ScenarioError: with the faults of all parts.
    """
    scenario, gathering = file.scenario, Gathering(file)
    model = gathering.load(("model",), lambda: load_model(scenario.model))
    node = gathering.load(("hardware",), lambda: node_of(scenario))
    fits = gathering.load(("hardware", "fits"), lambda: fits_of(file))
    source = gathering.load(("trace", "file"), lambda: _source(file, model))
    policies = {
        key: gathering.load(("policies", key), partial(load_policy, file, family, choice))
        for key, family, choice in _choices(scenario)
    }
    precisions = precisions_of(gathering, scenario, model)
    planned = scenario.policies.schedule
    schedule = None
    if planned is not None:
        schedule = gathering.load(("policies", "schedule"), lambda: load_schedule(file.folder / planned))
    gathering.stop()
    return Parts(model, replace(node, fits=fits), source, policies, precisions, schedule, ways_of(scenario))


def fits_of(file: ScenarioFile) -> Mapping[FitKey, Fit] | None:
    """Constants from the user's own tables beside the shipped ones; None: the shipped ones alone."""
    named = file.scenario.hardware.fits
    return with_own(file.folder / name for name in named) if named else None


def check_named(file: ScenarioFile) -> None:
    """Whether there is what a scenario names, but for its trace: quick, and nothing is built.

    Raises:
        ScenarioError: with every fault.
    """
    scenario, gathering = file.scenario, Gathering(file)
    model = gathering.load(("model",), lambda: load_model(scenario.model))
    gathering.load(("hardware",), lambda: node_of(scenario))
    precisions_of(gathering, scenario, model)
    for key, family, choice in _choices(scenario):
        gathering.load(("policies", key), partial(load_policy, file, family, choice))
    serving = scenario.serving
    if serving is not None and serving.network is not None:
        gathering.load(("serving", "network"), partial(load_network, serving.network))
    if serving is not None and serving.disaggregation is not None:
        network = serving.disaggregation.network
        gathering.load(("serving", "disaggregation", "network"), partial(load_network, network))
    gathering.stop()


def ways_of(scenario: Scenario) -> Ways:
    """How experts move."""
    wanted = scenario.transfers
    flash = FlashReads(wanted.flash, parse(wanted.read_size, "bytes"), wanted.depth, wanted.lanes, wanted.cached)
    return Ways(HostCopies(wanted.host, wanted.copies), flash)


def precisions_of(gathering: Gathering, scenario: Scenario, model: ModelSpec | None) -> Precisions:
    """How weights and KV cache are stored; by default as the model was released."""
    wanted = scenario.precision
    experts = _precision(gathering, "experts", wanted.experts or (model.expert_precision if model else None))
    dense = _precision(gathering, "dense", wanted.dense or (model.dense_precision if model else None))
    return Precisions(experts, dense, {"bf16": 2.0, "fp8": 1.0}[wanted.kv])


def _source(file: ScenarioFile, model: ModelSpec | None) -> RoutingTrace:
    """The trace as its file has it, or routing out of chance in the model's shape."""
    if file.scenario.trace.file != NO_TRACE:
        return load_trace(file.folder / file.scenario.trace.file)
    if model is None:  # it could not be loaded, which is a fault already
        raise ScenarioError([])
    if (wanted := file.scenario.trace.synthetic) is None:
        told = f"{model.name} has experts, so its routing must come from somewhere"
        raise ScenarioError.of("", told, "name a trace, or say trace: {file: none, synthetic: {}}")
    return synthetic_for(model, wanted, file.scenario.seed)


def _precision(gathering: Gathering, key: str, name: str | None) -> Precision:
    """The precision of that name; None stands for a model that could not be loaded, which is a fault already."""
    return gathering.load(("precision", key), lambda: get_precision(name)) if name else get_precision("bf16")


def policy_files(scenario: Scenario) -> list[str]:
    """The files that a scenario names as policies."""
    named = [choice for _, _, choice in _choices(scenario)] + [scenario.policies.placement]
    return [choice.name for choice in named if is_file(choice.name)]


#: What stands in for a policy file that is only read.
_STAND_INS = {"caching": "lru", "prefetch": "none", "on_miss": "fetch", "precision": "uniform", "split": "equal"}
_STAND_INS |= {"batching": "arrival", "placement": "contiguous"}


def load_policy(file: ScenarioFile, family: str, choice: PolicyChoice) -> Policy:
    """A policy by its name; or a user's own file, whose code runs only where that was allowed."""
    if not is_file(choice.name):
        return api.load(family, choice.name, choice.params)
    path = file.folder / choice.name
    if file.code == "run":
        return api.load_file(family, choice.name, path, choice.params)
    api.check_file(family, choice.name, path)
    if file.code == "refuse":
        told = f"{choice.name} is code, which runs with all your rights and only if you say so"
        raise PolicyError.of("", told, "read it, then add --allow-code (in Python: allow_code=True)")
    return api.load(family, _STAND_INS[family])


def _choices(scenario: Scenario) -> list[tuple[str, str, PolicyChoice]]:
    policies = scenario.policies
    return [
        ("caching", "caching", policies.caching),
        ("host_caching", "caching", policies.host_caching),
        ("low_caching", "caching", policies.low_caching),
        ("prefetch", "prefetch", policies.prefetch),
        ("on_miss", "on_miss", policies.on_miss),
        ("precision", "precision", policies.precision),
        ("split", "split", policies.split),
        ("batching", "batching", policies.batching),
    ]


def node_of(scenario: Scenario) -> Node:
    """The machine that a scenario names."""
    wanted = scenario.hardware
    return build_node(
        wanted.node,
        gpu=wanted.gpu,
        cpu=wanted.cpu,
        link=wanted.link,
        storage=wanted.storage,
        host_memory=wanted.host_memory,
        overrides=wanted.override,
    )
