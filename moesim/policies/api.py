"""The contract of each policy family. A policy is one module; this is what the module holds.

**Caching** (``policies/caching/NAME.py``) decides what leaves a tier, and whether an expert is kept at all::

    class Params(pydantic model)          the parameters that a scenario may give, with defaults
    NOTE = "next_use" | "schedule" | "weight" | None   what `note` is in the calls below (default None: 0.0)
    needs_future = True                   must be set where NOTE looks ahead; such a policy is a bound, not a system
    needs_training = True                 learns from `context.training_uses`; the scenario must name a training split
    def initial_state(params, context) -> (int64 array, float64 array)        ordinary Python, called once
    def on_hit(state_i, state_f, key, now, note) -> None                      an activation of a kept expert
    def on_insert(state_i, state_f, key, now, note) -> None                   space taken; covers that activation too
    def on_evict(state_i, state_f, key) -> None                               it left (by `victim`, or otherwise)
    def victim(state_i, state_f, locked) -> int                               who leaves; -1 where all are locked
    def admit(state_i, state_f, key, now, note) -> bool                       optional: keep it after this use?
    def on_visit(state_i, state_f, layer, starts_request) -> None             optional: a router has spoken
    def before_insert(state_i, state_f, key) -> None                          optional: it is about to need space
    def on_bypass(state_i, state_f, key, now, note) -> None                   optional: an activation of one not here
    def preload(params, context) -> list[int]                                 optional: keys resident at the start

``key`` counts (layer, expert) pairs of this cache from 0, ``now`` counts activations, ``locked[key]`` is nonzero for
experts that must stay (being copied, or waited for by the running visit). ``starts_request`` is said once a step, at
the first layer that the cache holds.

A demand's order is ``before_insert``, ``victim`` and ``on_evict`` until it fits, and at the visit's end ``admit`` and
``on_insert``. A prefetch's is ``admit``, ``before_insert``, ``victim`` and ``on_evict``, then ``on_insert`` (which
covers no activation) or nothing more where it finds no room. ``on_bypass`` tells of what the CPU computed, what was
not admitted, and what already left again within its visit.

The functions on ``state`` use only what numba compiles: integers, floats, indexing, ``structures``. They are
interpreted in the SimPy engine and compiled in the replay, from the same source.

**Prefetch** (``policies/prefetch/NAME.py``) proposes experts to fetch before they are asked for::

    class Params
    needs_future = True                   proposals made from what the trace does next (an oracle, a modelled guess)
    def candidates(params, visits, trace, rng) -> Candidates
    def choose(params, offered) -> None   optional: which of a visit's proposals go out now (see :class:`Offered`)

A *causal annotator*: at each visit it lists keys for later visits, most wanted first, from what is known when that
visit's router has spoken. The engine drops what is resident or on its way, and issues the rest behind the demands.
Where ``Params`` has a ``protect`` that is true, what is resident then leaves only for demands that find no other room,
until the next visit.

**On a miss** (``policies/on_miss/NAME.py``) says what becomes of missing experts, one by one or all of a visit::

    class Params
    ACTIONS = (FETCH, ...)                what it may choose
    def initial_state(params) -> float64 array
    def decide(state_f, tokens, fetch_s, cpu_s, gpu_s) -> int    FETCH or CPU for one expert; or in its place:
    def plan(state_f, asked) -> None      writes ``asked.action``, ``order`` and ``instead`` (see :class:`Asked`)

``fetch_s``, ``cpu_s`` and ``gpu_s`` are its seconds to come to the GPU, on the CPU (both with the read from flash
where needed) and on the GPU. Both functions are in the compiled subset. LOW (compute with a copy in lower precision),
SKIP and SUBSTITUTE (another expert's output in its place) change what the model says, and a Result counts the gate
weight that they concern. STREAM brings an expert for this visit only, through space of its own.

**Precision** (``policies/precision/NAME.py``): in how many bits experts are stored; see that package.

**Split** (``policies/split/NAME.py``): how a cache is shared out among layers; see that package.

**Batching** (``policies/batching/NAME.py``): which requests decode together; see that package.

**Placement** (``policies/placement/NAME.py``) says which physical expert lies on which rank of a cluster::

    class Params
    needs_training = True                 uses `profile.load`, `transitions` or `together` of a training split
    replicates = True                     chooses itself what the slots beyond one per expert hold
    def place(params, profile, rng) -> (logical, rank)          expert and rank of each slot. [layers, slots] each
    def split(params, load, logical, rank) -> share             optional: of a batch's tokens of its expert that each
                                                                slot gets; default: equal shares. [slots]

Every expert must have a slot. Slots of a rank need not be as many in every layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from moesim.errors import Fault, PolicyError, nearest
from moesim.policies import plug_ins
from moesim.registry import load_module, modules_in
from moesim.traces.visits import Visits

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: The expert and the rank of each slot. [layers, slots] each
Placed = tuple[Ints, Ints]

FAMILIES = ("caching", "prefetch", "on_miss", "precision", "split", "batching", "placement")
#: What becomes of a lookup. FETCH stands also for an expert that is there: it is computed on the GPU, unchanged.
FETCH, CPU, STREAM, LOW, SKIP, SUBSTITUTE = range(6)
CHANGE_OUTPUT = (LOW, SKIP, SUBSTITUTE)
#: Where an expert is when its router has spoken: see :class:`Asked`.
ABSENT, HERE, COMING, LOW_HERE, LOW_COMING = range(5)
NOTES = ("next_use", "schedule", "weight", None)
_FUTURE_NOTES = ("next_use", "schedule")

_OPTIONAL = {
    "admit": ["state_i", "state_f", "key", "now", "note"],
    "on_visit": ["state_i", "state_f", "layer", "starts_request"],
    "before_insert": ["state_i", "state_f", "key"],
    "on_bypass": ["state_i", "state_f", "key", "now", "note"],
    "preload": ["params", "context"],
}
_OPTIONAL_PREFETCH = {"choose": ["params", "offered"]}
_OPTIONAL_PLACEMENT = {"split": ["params", "load", "logical", "rank"]}
_SIGNATURES: dict[str, dict[str, list[str]]] = {
    "caching": {
        "initial_state": ["params", "context"],
        "on_hit": ["state_i", "state_f", "key", "now", "note"],
        "on_insert": ["state_i", "state_f", "key", "now", "note"],
        "on_evict": ["state_i", "state_f", "key"],
        "victim": ["state_i", "state_f", "locked"],
    },
    "prefetch": {"candidates": ["params", "visits", "trace", "rng"]},
    "on_miss": {"initial_state": ["params"]},
    "precision": {},
    "split": {"slots": ["params", "facts"]},
    "batching": {"group": ["params", "paths", "batch"]},
    "placement": {"place": ["params", "profile", "rng"]},
}
#: One of them; families other than these have none.
_ONE_OF = {
    "on_miss": {"decide": ["state_f", "tokens", "fetch_s", "cpu_s", "gpu_s"], "plan": ["state_f", "asked"]},
    "precision": {"assign": ["params", "stored"], "planes": ["params"]},
}


class PolicyParams(BaseModel):
    """Base of every policy's ``Params``: strict and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class CacheContext:
    """What a caching policy knows before the first visit.

    Attributes:
        sizes: bytes of each key. [keys]
        capacity_bytes: space of this cache.
        experts_per_layer: key // experts_per_layer is the (cache-local) layer.
        training_uses: activations of each key in the training split, or None. [keys]
        pinned: keys that are there from the start and never leave; their space is part of the capacity.
        asks: of a schedule for host memory, as (start, asks): the numbers of the asks at which key k is to be asked
            for are ``asks[start[k]:start[k + 1]]``, rising. [keys + 1], [asks]
    """

    sizes: NDArray[np.int64]
    capacity_bytes: int
    experts_per_layer: int
    training_uses: NDArray[np.int64] | None = None
    pinned: tuple[int, ...] = ()
    asks: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def num_keys(self) -> int:
        """Keys of this cache: (layer, expert) pairs."""
        return len(self.sizes)

    @property
    def no_floats(self) -> NDArray[np.float64]:
        """``state_f`` of a policy that needs none."""
        return np.zeros(0)


@dataclass(frozen=True)
class Candidates:
    """What a prefetch policy proposes, most wanted first.

    Attributes:
        start: the proposals of visit v are ``start[v]:start[v + 1]``. [visits + 1]
        key: (layer, expert) keys. [proposals]
        target: the visit that each is meant for, later than v. [proposals]
        tokens: that are expected to use it, where the policy says so. [proposals]
        low: whether a copy in low precision is to come, where the policy says so. [proposals]
    """

    start: Ints
    key: Ints
    target: Ints
    tokens: Ints | None = None
    low: NDArray[np.bool_] | None = None

    def behind(self, visits: int) -> Candidates:
        """Without the first ``visits``, and as if there had been none."""
        first = int(self.start[visits])
        tokens = None if self.tokens is None else self.tokens[first:]
        low = None if self.low is None else self.low[first:]
        return Candidates(self.start[visits:] - first, self.key[first:], self.target[first:] - visits, tokens, low)


@dataclass
class Offered:
    """A visit's proposals, when they could go out: the argument of ``choose``, which writes ``rank``.

    Attributes:
        ahead: how many visits ahead each is meant for. [proposals]
        there: ABSENT, HERE or COMING (sent for already, or under way). [proposals]
        tokens: that are expected to use it. [proposals]
        fetch_s, cpu_s, gpu_s: seconds to bring it, and to compute so many tokens on CPU and GPU. [proposals]
        rank: those with 0 or more go out, in ascending order; -1: not now. 0, 1, 2, … at first. [proposals]
    """

    ahead: list[int]
    there: list[int]
    tokens: list[int]
    fetch_s: list[float]
    cpu_s: list[float]
    gpu_s: list[float]
    rank: list[int]


@dataclass
class Asked:
    """What a visit's router asks for, and what is to become of it: the argument of ``plan``. Lists in SimPy.

    ``plan`` writes ``action`` for lookups that are not HERE or COMING (those are used in any case, unless it writes
    SKIP), ``instead`` for those that it lets SUBSTITUTE, and may write ``order``. LOW_HERE and LOW_COMING can be
    used (LOW) or fetched in full.

    Attributes:
        there: ABSENT, HERE, COMING (its transfer has begun), LOW_HERE or LOW_COMING. [lookups]
        expert: its number in the layer. [lookups]
        tokens: of the step that use it. [lookups]
        share: the largest share of a token's gate weight that it has. [lookups]
        before: the least sum of shares that a token ranks before it (0: some token's first choice). [lookups]
        fetch_s, low_s, cpu_s, gpu_s: seconds to bring it, to bring its copy in low precision (infinite where there
            is none), to compute it on the CPU (each with the read from flash where needed), and on the GPU. [lookups]
        resident: whether each expert of the layer is HERE. [experts]
        uses: activations of each expert of the layer so far. [experts]
        action: FETCH at first. [lookups]
        order: demands are made in ascending order; 0, 1, … at first. [lookups]
        instead: the resident expert of the layer that takes a substituted one's place. [lookups]
    """

    there: Any
    expert: Any
    tokens: Any
    share: Any
    before: Any
    fetch_s: Any
    low_s: Any
    cpu_s: Any
    gpu_s: Any
    resident: Any
    uses: Any
    action: Any
    order: Any
    instead: Any


def proposals(visits: Visits, visit: Ints, key: Ints, target: Ints, budget: int | None) -> Candidates:
    """Proposals made token by token, merged: nearest target first, then most tokens, then first named.

    Args:
        visit, key, target: one entry for each token's proposal, each visit's in order of preference. [proposals]
        budget: at most so many distinct keys for each visit.
    """
    merged, first, votes = np.unique(visit * visits.num_keys + key, return_index=True, return_counts=True)
    visit, key, target = merged // visits.num_keys, merged % visits.num_keys, target[first]
    order = np.lexsort((first, -votes, target, visit))
    visit, key, target, votes = visit[order], key[order], target[order], votes[order]
    if budget is not None:
        rank = np.arange(len(visit)) - np.searchsorted(visit, visit)
        visit, key, target, votes = (column[rank < budget] for column in (visit, key, target, votes))
    return Candidates(np.searchsorted(visit, np.arange(visits.num_visits + 1)), key, target, votes)


@dataclass(frozen=True)
class Policy:
    """A policy module with the parameters that a scenario gave it; ``file``: where it is a user's own."""

    family: str
    name: str
    module: ModuleType
    params: PolicyParams
    file: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name, since a module can't be: another process loads it again."""
        if self.file is not None:
            return load_file, (self.family, self.name, self.file, self.params.model_dump())
        return load, (self.family, self.name, self.params.model_dump())

    @property
    def needs_future(self) -> bool:
        """Whether it sees what the trace does next."""
        return getattr(self.module, "needs_future", False)

    @property
    def models_future(self) -> bool:
        """Whether a predictor's quality is modelled from the truth instead of recorded."""
        return getattr(self.params, "models_future", False)

    @property
    def protects(self) -> bool:
        """Whether what a prefetch policy proposes, and is there, is kept from leaving until its visit."""
        return getattr(self.params, "protect", False)

    @property
    def actions(self) -> tuple[int, ...]:
        """What an on-miss policy may choose."""
        return getattr(self.module, "ACTIONS", (FETCH, CPU))

    @property
    def changes_output(self) -> bool:
        """Whether an on-miss policy may change what the model says."""
        return any(action in CHANGE_OUTPUT for action in self.actions)

    @property
    def needs_training(self) -> bool:
        """Whether it learns from a training split."""
        return getattr(self.module, "needs_training", False)

    @property
    def note(self) -> str | None:
        """What the ``note`` argument holds."""
        return getattr(self.module, "NOTE", None)

    @property
    def admit(self) -> Callable[..., bool] | None:
        """The policy's admission rule, where it has one."""
        return getattr(self.module, "admit", None)

    @property
    def on_visit(self) -> Callable[..., None] | None:
        """What the policy does when a visit begins, where it has such a rule."""
        return getattr(self.module, "on_visit", None)

    @property
    def before_insert(self) -> Callable[..., None] | None:
        """What the policy does before room is made for a key, where it has such a rule."""
        return getattr(self.module, "before_insert", None)

    @property
    def on_bypass(self) -> Callable[..., None] | None:
        """What the policy does with an activation of an expert that is not here, where it has such a rule."""
        return getattr(self.module, "on_bypass", None)

    def preload(self, context: CacheContext) -> list[int]:
        """Keys that are resident at the start: the pinned ones, and what the policy wants beside them."""
        preload = getattr(self.module, "preload", None)
        if preload is None:
            return list(context.pinned)
        left = context.capacity_bytes - int(context.sizes[list(context.pinned)].sum())
        wanted = preload(self.params, replace(context, capacity_bytes=left))
        return [*context.pinned, *(key for key in wanted if key not in context.pinned)]

    def describe(self) -> dict[str, Any]:
        """Name and every parameter, for a Result; of a user's file also the checksum."""
        told = {"name": self.name, **self.params.model_dump(mode="json")}
        return told if self.file is None else {**told, "sha256": plug_ins.digest_of_file(self.file)}


def names(family: str) -> list[str]:
    """The names of a family's policies, those of installed plug-ins last.

    Raises:
        PolicyError: a plug-in is called as no family, or as a policy that is there already.
    """
    plug_ins.check_names(FAMILIES)
    own, others = modules_in(f"moesim.policies.{family}"), plug_ins.plug_ins(family)
    if twice := own.keys() & others.keys():
        name = min(twice)
        raise PolicyError.of(f"entry point {others[name].name}", f"{name!r} is a policy of moesim already")
    return [*own, *others]


def load(family: str, name: str, params: Mapping[str, Any] | None = None) -> Policy:
    """A policy by name, its module checked against the contract, its parameters against its ``Params``.

    Raises:
        PolicyError: unknown name, a module that breaks the contract, or wrong parameters (all at once).
    """
    offered = plug_ins.plug_ins(family) if name not in modules_in(f"moesim.policies.{family}") else {}
    if name in offered:
        return _policy(family, name, plug_ins.load_plug_in(offered[name]), params)
    return _policy(family, name, load_module(f"moesim.policies.{family}", name, PolicyError), params)


def load_file(family: str, name: str, path: Path, params: Mapping[str, Any] | None = None) -> Policy:
    """A policy from a user's file, which is run; ``name``: what the scenario calls it. Errors as :func:`load`."""
    return replace(_policy(family, name, plug_ins.run_file(path), params), file=path.resolve())


def check_file(family: str, name: str, path: Path) -> None:
    """Check a user's file as far as its text tells, without running it.

    Raises:
        FileError: it can't be read.
        PolicyError: it is not Python, or lacks functions of its family.
    """
    found = plug_ins.functions_in(plug_ins.read_file(path))
    choice, wanted = _ONE_OF.get(family, {}), _SIGNATURES[family]
    missing = [function for function in wanted if function not in found]
    if choice and not set(choice) & set(found):
        missing.append(" or ".join(choice))
    faults = [Fault(name, f"defines no function {function}") for function in missing]
    for function, arguments in (wanted | choice | (_OPTIONAL if family == "caching" else {})).items():
        if function in found and found[function] != arguments:
            faults.append(Fault(name, f"{function} must take ({', '.join(arguments)})"))
    if faults:
        raise PolicyError(faults)


def _policy(family: str, name: str, module: ModuleType, params: Mapping[str, Any] | None) -> Policy:
    check(family, name, module)
    try:
        return Policy(family, name, module, module.Params(**(params or {})))
    except ValidationError as error:
        raise PolicyError([_parameter_fault(module, name, detail) for detail in error.errors()]) from None


def check(family: str, name: str, module: ModuleType) -> None:
    """Check that a module keeps its family's contract.

    Raises:
        PolicyError: with everything that is missing or wrong.
    """
    place = f"policy {name!r} ({family})"
    faults = []
    if not (isinstance(params := getattr(module, "Params", None), type) and issubclass(params, PolicyParams)):
        faults.append(Fault(place, "has no class Params(PolicyParams)"))
    for function, arguments in _SIGNATURES[family].items():
        found = getattr(module, function, None)
        if found is None:
            faults.append(Fault(place, f"has no function {function}({', '.join(arguments)})"))
        elif list(inspect.signature(found).parameters) != arguments:
            faults.append(Fault(place, f"{function} must take ({', '.join(arguments)})"))
    choice = _ONE_OF.get(family, {})
    if choice and not any(hasattr(module, function) for function in choice):
        faults.append(Fault(place, "has none of the functions " + ", ".join(choice)))
    optional = {"caching": _OPTIONAL, "prefetch": _OPTIONAL_PREFETCH, "placement": _OPTIONAL_PLACEMENT}.get(family, {})
    for function, arguments in (choice | optional).items():
        found = getattr(module, function, None)
        if found is not None and list(inspect.signature(found).parameters) != arguments:
            faults.append(Fault(place, f"{function} must take ({', '.join(arguments)})"))
    if (note := getattr(module, "NOTE", None)) not in NOTES:
        faults.append(Fault(place, f"unknown NOTE {note!r}", "known: next_use, schedule, weight"))
    if note in _FUTURE_NOTES and not getattr(module, "needs_future", False):
        faults.append(Fault(place, f"reads {note} but does not say needs_future = True"))
    if not (module.__doc__ or "").strip():
        faults.append(Fault(place, "has no docstring that states its rule and source"))
    if faults:
        raise PolicyError(faults)


def _parameter_fault(module: ModuleType, name: str, detail: Any) -> Fault:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = module.Params.model_fields
        return Fault(key, f"{name!r} has no parameter {key!r}", nearest(key, known) if known else "it takes none")
    return Fault(key, f"{detail['msg'][:1].lower()}{detail['msg'][1:]} (got {detail['input']!r})")
