"""One number of a spec replaced by the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from moesim.documents import Document, validate
from moesim.errors import CardError, nearest
from moesim.hardware.sourced import Sourced
from moesim.hardware.specs import Spec

SOURCE = "scenario override"
#: A number that many times as large or small as the card's is a slip, and would drown every other.
MOST_TIMES = 1e6
AnySpec = TypeVar("AnySpec", bound=Spec)


def overridden(spec: AnySpec, path: Sequence[str], value: str | float) -> AnySpec:
    """A copy of ``spec`` with the number at ``path`` replaced; its source says so, and its kind is ``assumed``.

    Args:
        path: field names, outermost first: ``["memory_bandwidth"]``, ``["compute", "bf16"]``.
        value: what a card would have under ``value``: a quantity string, or a bare fraction or count.

    Raises:
        CardError: there is no such number, or the value is wrong or out of all proportion.
    """
    leaf = {"value": value, "kind": "assumed", "source": SOURCE}
    changed = validate(Document(spec.name, _with(spec, path, leaf)), type(spec), CardError)
    before, after = _number(spec, path), _number(changed, path)
    if before and after and not 1 / MOST_TIMES <= after / before <= MOST_TIMES:
        told = f"{value!r} is {after / before:.3g} times the card's number"
        raise CardError.of("", told, f"within a factor of {MOST_TIMES:.0e} of it; is its unit right?")
    return changed


def _number(spec: BaseModel | Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The number at ``path``; None where there is none."""
    found: Any = spec
    for key in path:
        found = dict(found).get(key) if found is not None else None
    return float(found.value) if isinstance(found, Sourced) else None


def _with(level: BaseModel | Mapping[str, Any], path: Sequence[str], leaf: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``level`` with the number at ``path`` replaced, as input for validation."""
    key, *rest = path or [""]
    fields = dict(level)
    numbers = [name for name, value in fields.items() if isinstance(value, (Sourced, BaseModel, dict, type(None)))]
    if isinstance(level, BaseModel) and key not in numbers:
        raise CardError.of("", f"no number {key!r} here" if key else "names no number", nearest(key, numbers))
    old: Any = fields.get(key)
    has_parts = isinstance(old, (BaseModel, dict)) and not isinstance(old, Sourced)
    if rest and not has_parts:
        raise CardError.of("", f"{key!r} has no parts", f"leave out {'.' + '.'.join(rest)!r}")
    if not rest and has_parts:
        raise CardError.of("", f"{key!r} has several parts", "name one: " + ", ".join(dict(old)))
    fields[key] = _with(old, rest, leaf) if rest else leaf
    return fields
