"""A document against a pydantic model: every fault at once, each with its place and a hint."""

from __future__ import annotations

import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from moesim.documents.document import Document, Keys
from moesim.errors import Fault, MoesimError, nearest

Spec = TypeVar("Spec", bound=BaseModel)


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
        raise error(_faults(document, spec, fault)) from None


def _faults(document: Document, spec: type[BaseModel], error: ValidationError) -> list[Fault]:
    """In the order of the file; one for each key, also where it fits none of several types."""
    found: dict[Keys, list[Fault]] = {}
    for detail in error.errors():
        keys = _keys_in_document(document.data, detail)
        found.setdefault(keys, []).append(_fault(document, spec, keys, detail))
    merged = []
    for keys in sorted(found, key=document.line):
        first, *others = found[keys]
        message = "; or ".join(dict.fromkeys(fault.message for fault in (first, *others)))
        merged.append(Fault(first.place, message, first.hint))
    return merged


def _fault(document: Document, spec: type[BaseModel], keys: Keys, detail: Any) -> Fault:
    kind, given, place = detail["type"], _short(detail["input"]), document.place(keys)
    if kind == "extra_forbidden":
        parent = _model_at(spec, keys[:-1])
        hint = nearest(str(keys[-1]), parent.model_fields) if parent else "remove it"
        return Fault(place, f"unknown key (got {given})", hint)
    if kind == "missing":
        return Fault(place, "is required", "add this key")
    if kind in ("model_type", "dict_type"):
        model = _model_at(spec, keys)
        hint = f"it has the keys {', '.join(model.model_fields)}" if model else "write it as 'key: value' lines"
        return Fault(place, f"must be a mapping of keys to values (got {given})", hint)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message, _, hint = message.partition(" | hint: ")
    if detail["input"] is None:
        hint = hint or "give a value, or leave the key out"
    return Fault(place, f"{message[:1].lower()}{message[1:]} (got {given})", hint)


def _short(value: Any) -> str:
    """A value as its file would show it."""
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_in_document(data: Any, detail: Any) -> Keys:
    """Where a pydantic fault is, without the names of union members, which are not keys of the document."""
    keys: list[str | int] = []
    for part in detail["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            data = data[part]
            keys.append(part)
    return (*keys, detail["loc"][-1]) if detail["type"] == "missing" else tuple(keys)


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
