"""From a scenario file to a checked :class:`Scenario`, with every fault told by file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from moesim.documents import Document, parse_yaml, read_yaml, validate
from moesim.errors import Fault, ScenarioError
from moesim.scenario.schema import Scenario

MAX_KEYS = 8
Code = Literal["run", "read", "refuse"]


@dataclass(frozen=True)
class ScenarioFile:
    """A checked scenario and where it was written: paths in it are relative to ``folder``.

    ``code``: what is done with policies that are files: ``run`` them, ``read`` them (a policy of moesim then stands in,
    so that everything else can be checked), or ``refuse`` them.
    """

    scenario: Scenario
    document: Document
    folder: Path
    code: Code = "refuse"

    def fault(self, keys: Sequence[str], fault: Fault) -> Fault:
        """``fault`` placed at ``keys`` of the file, or at the key below that the fault names.

        That key may be a number's whole name below ``override``; without ``keys`` it counts from the top.
        """
        below = ((*keys, *fault.place.split(".")), (*keys, "override", fault.place))
        named = next((place for place in below if not keys or self.document.holds(place)), None)
        if named is not None:
            return Fault(self.document.place(named), fault.message, fault.hint)
        detail = "" if fault.place in ("", *keys[-1:]) else f"{fault.place}: "
        return Fault(self.document.place(keys), f"{detail}{fault.message}", fault.hint)


def load_scenario(
    source: str | Path | Mapping[str, Any] | Scenario, overrides: Sequence[str] = (), *, code: Code = "refuse"
) -> ScenarioFile:
    """Read and check a scenario.

    Args:
        source: a path (also of a comparison with its base scenario inside, which is then meant), a mapping with a
            scenario's keys, or a Scenario (paths in these: from the working folder).
        overrides: ``a.b=value`` settings that replace or add to what the file says; values are YAML.
        code: as in :class:`ScenarioFile`.

    Raises:
        FileError: the file can't be read.
        ScenarioError: with every fault at once.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        document, folder = _base(read_yaml(path, ScenarioError)), path.parent
    else:
        data = source.model_dump(mode="json", exclude_unset=True) if isinstance(source, Scenario) else dict(source)
        document, folder = Document("scenario", data), Path()
    return _checked(_with_overrides(document, overrides), folder, code)


def _base(document: Document) -> Document:
    """The scenario inside of a comparison, with the lines that it has there; else the document itself."""
    if not isinstance(document.data, dict) or not isinstance(document.data.get("scenario"), dict):
        return document
    lines = {keys[1:]: line for keys, line in document.lines.items() if keys[:1] == ("scenario",)}
    return Document(document.name, document.data["scenario"], lines)


def with_settings(file: ScenarioFile, overrides: Sequence[str]) -> ScenarioFile:
    """A scenario with some settings replaced; see :func:`load_scenario`."""
    return _checked(_with_overrides(file.document, overrides), file.folder, file.code)


def _checked(document: Document, folder: Path, code: Code) -> ScenarioFile:
    return ScenarioFile(validate(document, Scenario, ScenarioError), document, folder, code)


def _with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document with each ``a.b=value`` applied; what an override has replaced stands there, no longer in a line."""
    data, lines, settings = document.data, dict(document.lines), dict(document.settings)
    if overrides and not isinstance(data, dict):
        return document
    for text in overrides:
        place = f"--set {text}"
        name, equals, value = text.partition("=")
        keys = _split(name.strip())
        if not equals or not all(keys) or len(keys) > MAX_KEYS:
            raise ScenarioError.of(place, "must be of the form key=value", "as in --set policies.caching=lfu")
        data = _replaced(data, keys, _value(value, place), place)
        lines = {known: line for known, line in lines.items() if known[: len(keys)] != keys}
        settings = {known: told for known, told in settings.items() if known[: len(keys)] != keys} | {keys: place}
    return Document(document.name, data, lines, settings)


def _split(name: str) -> tuple[str, ...]:
    """``a.b.c`` as keys; what stands below ``hardware.override`` is one key with dots in it."""
    keys = tuple(name.split("."))
    return (*keys[:2], ".".join(keys[2:])) if keys[:2] == ("hardware", "override") and keys[2:] else keys


def _value(text: str, place: str) -> Any:
    try:
        return parse_yaml(text, place, ScenarioError).data
    except ScenarioError as error:
        raise ScenarioError([replace(fault, place=place) for fault in error.faults]) from None


def _replaced(data: Any, keys: tuple[str, ...], value: Any, place: str, parent: str = "") -> Any:
    """``data`` with ``value`` at ``keys``; a string on the way is the short form of a mapping."""
    if not keys:
        return value
    if isinstance(data, str) and parent in _SHORT_FORMS:
        data = {_SHORT_FORMS[parent]: data}
    if data is not None and not isinstance(data, dict):
        raise ScenarioError.of(place, f"{parent!r} is not a mapping, so it has no {keys[0]!r}", "check the key")
    below = data or {}
    return {**below, keys[0]: _replaced(below.get(keys[0]), keys[1:], value, place, keys[0])}


#: The parts that may be written as one string, and the key that it stands for.
_SHORT_FORMS = {"trace": "file", "hardware": "node"} | dict.fromkeys(
    ("placement", "caching", "host_caching", "low_caching", "prefetch", "on_miss", "precision", "split", "batching"),
    "name",
)
