"""From a scenario file to a checked :class:`Scenario`, with every fault told by file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.documents import Document, parse_yaml, read_yaml, validate
from moesim.errors import Fault, MoesimError, ScenarioError
from moesim.scenario.schema import Scenario


@dataclass(frozen=True)
class ScenarioFile:
    """A checked scenario and where it was written: paths in it are relative to ``folder``."""

    scenario: Scenario
    document: Document
    folder: Path

    def fault(self, keys: Sequence[str], fault: Fault) -> Fault:
        """``fault`` placed at ``keys`` of the file, or at the key below it that the fault names."""
        inner = tuple(fault.place.split("."))
        if (*keys, *inner) in self.document.lines:
            return Fault(self.document.place((*keys, *inner)), fault.message, fault.hint)
        detail = f"{fault.place}: " if fault.place else ""
        return Fault(self.document.place(keys), f"{detail}{fault.message}", fault.hint)

    def relocate(self, keys: Sequence[str], error: MoesimError) -> ScenarioError:
        """An error from a card, trace or policy as a fault of this file."""
        return ScenarioError([self.fault(keys, fault) for fault in error.faults])


def load_scenario(source: str | Path | Mapping[str, Any] | Scenario, overrides: Sequence[str] = ()) -> ScenarioFile:
    """Read and check a scenario.

    Args:
        source: a path, a mapping with the keys of a scenario, or a Scenario (paths then relative to the working folder).
        overrides: ``a.b=value`` settings that replace or add to what the file says; values are YAML.

    Raises:
        FileError: the file can't be read.
        ScenarioError: with every fault at once.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        document, folder = read_yaml(path, ScenarioError), path.parent
    else:
        data = source.model_dump(mode="json", exclude_unset=True) if isinstance(source, Scenario) else dict(source)
        document, folder = Document("scenario", data), Path()
    document = _with_overrides(document, overrides)
    return ScenarioFile(validate(document, Scenario, ScenarioError), document, folder)


def _with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document with each ``a.b=value`` applied; its lines no longer name what an override has replaced."""
    data, lines = document.data, dict(document.lines)
    if overrides and not isinstance(data, dict):
        return document
    for text in overrides:
        name, equals, value = text.partition("=")
        keys = tuple(name.strip().split("."))
        if not equals or not all(keys):
            raise ScenarioError.of(f"--set {text}", "must be of the form key=value", "as in --set policies.caching=lfu")
        parsed = parse_yaml(value, f"--set {text}", ScenarioError).data
        data = _replaced(data, keys, parsed, f"--set {text}")
        lines = {known: line for known, line in lines.items() if known[: len(keys)] != keys}
    return Document(document.name, data, lines)


def _replaced(data: Any, keys: tuple[str, ...], value: Any, place: str, parent: str = "") -> Any:
    """``data`` with ``value`` at ``keys``; a string on the way is the short form of a mapping."""
    if not keys:
        return value
    if isinstance(data, str):
        data = {_SHORT_FORMS.get(parent, "name"): data}
    if data is not None and not isinstance(data, dict):
        raise ScenarioError.of(place, f"{parent!r} is not a mapping, so it has no {keys[0]!r}", "check the key")
    below = data or {}
    return {**below, keys[0]: _replaced(below.get(keys[0]), keys[1:], value, place, keys[0])}


#: The key that a plain string stands for; a policy's is ``name``.
_SHORT_FORMS = {"trace": "file", "hardware": "node"}
