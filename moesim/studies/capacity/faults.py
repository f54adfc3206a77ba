"""What is wrong with a plan, all of it at once: also what can be said of settings while other keys are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moesim.documents import Document
from moesim.errors import Fault, MoesimError
from moesim.scenario.load import ScenarioFile, with_settings
from moesim.scenario.parts import check_named
from moesim.studies.points import overrides_of

Keys = tuple[str, ...]


def faults_of(document: Document, base: ScenarioFile | None) -> Iterator[Fault]:
    """Of what the document holds, whatever its shape; ``base``: None where the base scenario can't be read."""
    options, loads = list(_options(document)), list(_loads(document))
    yield from _limitless(document, loads)
    yield from _overwritten(document, options, loads)
    if base is None:
        return
    known = {(fault.place.rpartition(": ")[2], fault.message) for fault in _of(base)}
    if base.scenario.parallel is not None:
        yield Fault(
            document.place(("scenario",)), "is a scenario of expert parallelism", "one with serving, or offload"
        )
    for keys, settings in [*options, *((keys, settings) for keys, settings, _ in loads)]:
        yield from _unfit(document, base, keys, settings, known)


def _options(document: Document) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Where each option's settings stand, and those."""
    for choice, options in _mapping(_mapping(document.data).get("choices")).items():
        for name, option in _mapping(options).items():
            yield ("choices", str(choice), str(name), "settings"), _mapping(_mapping(option).get("settings"))


def _loads(document: Document) -> Iterator[tuple[Keys, dict[str, Any], dict[str, Any]]]:
    """Where each load's settings stand, those, and its limits."""
    for name, load in _mapping(_mapping(document.data).get("loads")).items():
        given = _mapping(load)
        yield ("loads", str(name), "settings"), _mapping(given.get("settings")), _mapping(given.get("slo"))


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): found for key, found in value.items()} if isinstance(value, dict) else {}


def _limitless(document: Document, loads: list[tuple[Keys, dict[str, Any], dict[str, Any]]]) -> Iterator[Fault]:
    for keys, _, slo in loads:
        if not {"ttft", "tpot", "latency"} & set(slo):
            place = document.place((*keys[:-1], "slo"))
            yield Fault(place, "limits nothing", "give ttft, tpot or latency")


def _overwritten(
    document: Document, options: list[tuple[Keys, dict[str, Any]]], loads: list[tuple[Keys, dict[str, Any], Any]]
) -> Iterator[Fault]:
    """Keys that a later choice, or the load, sets again; a later one may set what is below an earlier one's key."""
    by_choice: dict[str, dict[str, None]] = {}
    for (_, choice, *_), settings in options:
        by_choice.setdefault(choice, {}).update(dict.fromkeys(settings))
    order = list(by_choice.items())
    for place, (choice, keys) in enumerate(order):
        for earlier, chosen in order[:place]:
            for key in keys:
                if any(_replaces(key, other) for other in chosen):
                    told = f"{key!r} is set by {earlier!r} as well"
                    yield Fault(document.place(("choices", choice)), told, "one choice for each key")
    for where, settings, _ in loads:
        for key in settings:
            if any(_replaces(key, other) for _, chosen in order for other in chosen):
                told = f"{key!r} is chosen by the plan and set by this load"
                yield Fault(document.place((*where, key)), told, "leave it to one of them")


def _replaces(key: str, earlier: str) -> bool:
    """Whether setting ``key`` undoes what was set at ``earlier``."""
    return earlier == key or earlier.startswith(f"{key}.")


def _unfit(
    document: Document, base: ScenarioFile, keys: Keys, settings: dict[str, Any], known: set[tuple[str, str]]
) -> Iterator[Fault]:
    """What the base scenario has no place for, or names what there is not; without what is wrong with it anyway."""
    try:
        check_named(with_settings(base, overrides_of(tuple(settings.items()))))
    except MoesimError as error:
        for fault in error.faults:
            place = fault.place.rpartition(": ")[2] or fault.place
            if (place, fault.message) not in known:
                yield Fault(document.place(keys), f"{place}: {fault.message}", fault.hint)


def _of(base: ScenarioFile) -> tuple[Fault, ...]:
    try:
        check_named(base)
    except MoesimError as error:
        return tuple(error.faults)
    return ()
