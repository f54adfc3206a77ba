"""YAML documents that remember their lines, and pydantic faults told by file and line.

Scenarios and cards are read here. The YAML is the plain part of YAML 1.2: ``yes``, ``no`` and ``on`` are text,
a key stands once, and there are no anchors or aliases (so a small file can't unfold into a large one).
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from moesim.errors import Fault, FileError, MoesimError, nearest

MAX_BYTES = 4 * 2**20
Spec = TypeVar("Spec", bound=BaseModel)
Keys = tuple[str | int, ...]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader with the booleans of YAML 1.2 and without timestamps."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":bool", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))


@dataclass(frozen=True)
class Document:
    """A parsed file: its ``data``, and the line on which each key or item stands."""

    name: str
    data: Any
    lines: Mapping[Keys, int] = field(default_factory=dict)

    def place(self, keys: Iterable[str | int]) -> str:
        """``file:line: a.b`` for the deepest part of ``keys`` that the file contains."""
        keys = tuple(keys)
        dotted = ".".join(str(key) for key in keys)
        known = next((keys[:n] for n in range(len(keys), -1, -1) if keys[:n] in self.lines), ())
        line = self.lines.get(known)
        where = f"{self.name}:{line}" if line else self.name
        return f"{where}: {dotted}" if dotted else where


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file.

    Raises:
        FileError: missing, a directory, not readable, too large, or not UTF-8.
    """
    try:
        if path.is_dir():
            raise FileError.of(str(path), "is a directory, not a file")
        if (size := path.stat().st_size) > max_bytes:
            raise FileError.of(str(path), f"is too large ({size} bytes, at most {max_bytes})")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if siblings else "check the path"
        raise FileError.of(str(path), "no such file", hint) from None
    except UnicodeDecodeError as error:
        raise FileError.of(str(path), f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise FileError.of(str(path), f"can't be read: {error.strerror}") from None


def read_yaml(path: Path, error: type[MoesimError]) -> Document:
    """Parse a YAML file.

    Raises:
        FileError: the file can't be read.
        error: it isn't YAML, or uses what moesim leaves out (aliases, tags, repeated keys).
    """
    return parse_yaml(read_text(path), str(path), error)


def parse_yaml(text: str, name: str, error: type[MoesimError]) -> Document:
    """As :func:`read_yaml`, from text."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            reader = _NodeReader(loader, name)
            data = None if node is None else reader.value(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as fault:
        line = f":{fault.problem_mark.line + 1}" if fault.problem_mark else ""
        raise error.of(f"{name}{line}", f"not valid YAML: {fault.problem}") from None
    except yaml.YAMLError as fault:
        raise error.of(name, f"not valid YAML: {str(fault).splitlines()[0]}") from None
    except RecursionError:
        raise error.of(name, "is nested too deeply") from None
    if reader.faults:
        raise error(reader.faults)
    return Document(name, data, reader.lines)


class _NodeReader:
    """Turns YAML nodes into plain values and notes the line of each."""

    def __init__(self, loader: Any, name: str):
        self._loader = loader
        self._name = name
        self._seen: set[int] = set()
        self.lines: dict[Keys, int] = {}
        self.faults: list[Fault] = []

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(keys, line)
        if id(node) in self._seen:
            self.faults.append(Fault(f"{self._name}:{line}", "anchors and aliases are not supported", "write it out"))
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*keys, index)) for index, item in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as fault:
            problem = getattr(fault, "problem", None) or str(fault)
            self.faults.append(Fault(f"{self._name}:{line}", f"not a plain value: {problem}"))
            return None

    def _mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in values:
                self.faults.append(Fault(f"{self._name}:{line}: {key}", "stands twice", "keep one of them"))
            self.lines[(*keys, key)] = line
            values[key] = self.value(value_node, (*keys, key))
        return values


def validate(document: Document, spec: type[Spec], error: type[MoesimError]) -> Spec:
    """Check a document against a pydantic model.

    Raises:
        error: with every fault of the document at once, each with its line, the value given, and a hint.
    """
    if not isinstance(document.data, dict):
        raise error.of(document.place(()), "must be a mapping of keys to values", "write it as 'key: value' lines")
    try:
        return spec.model_validate(document.data)
    except ValidationError as fault:
        raise error([_fault(document, spec, detail) for detail in fault.errors()]) from None


def _fault(document: Document, spec: type[BaseModel], detail: Any) -> Fault:
    keys = _keys_in_document(document.data, detail["loc"])
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        parent = _model_at(spec, keys[:-1])
        hint = nearest(str(keys[-1]), parent.model_fields) if parent else "remove it"
        return Fault(document.place(keys), f"unknown key (got {_short(given)})", hint)
    if kind == "missing":
        keys = (*keys, str(detail["loc"][-1])) if not keys or keys[-1] != detail["loc"][-1] else keys
        return Fault(document.place(keys), "is required", "add this key")
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message, _, hint = message.partition(" | hint: ")
    return Fault(document.place(keys), f"{message[:1].lower()}{message[1:]} (got {_short(given)})", hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_in_document(data: Any, loc: tuple[str | int, ...]) -> Keys:
    """A pydantic location without the names of union members, which are not keys of the document."""
    keys: list[str | int] = []
    for position, part in enumerate(loc):
        if isinstance(data, dict) and part in data or isinstance(data, list) and isinstance(part, int):
            data = data[part]
            keys.append(part)
        elif position == len(loc) - 1 and isinstance(data, dict) and isinstance(part, str):
            keys.append(part)
    return tuple(keys)


def _model_at(spec: type[BaseModel] | None, keys: Keys) -> type[BaseModel] | None:
    """The model whose fields stand at ``keys``, where there is exactly one."""
    for key in keys:
        if spec is None or not isinstance(key, str) or key not in spec.model_fields:
            return None
        spec = _model_in(spec.model_fields[key].annotation)
    return spec


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = [model for part in typing.get_args(annotation) if (model := _model_in(part)) is not None]
    return models[0] if len(models) == 1 else None
