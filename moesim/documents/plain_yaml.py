"""The plain part of YAML 1.2.

``yes``, ``no`` and ``on`` are text, ``010`` is ten, a key stands once, and there are no tags, anchors or aliases (so a
small file can't unfold into a large one).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from moesim.documents.document import Document, Keys, read_text
from moesim.errors import Fault, MoesimError

MAX_DEPTH = 32
MAX_DIGITS = 100
_TOO_DEEP = f"is nested too deeply: more than {MAX_DEPTH} levels"
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
#: The numbers of YAML 1.2, and underscores between digits.
_WHOLE = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_yaml(path: Path, error: type[MoesimError]) -> Document:
    """Parse a YAML file.

    Raises:
        FileError: the file can't be read.
        error: it isn't YAML, or uses what moesim leaves out (tags, aliases, repeated keys, several documents).
    """
    return parse_yaml(read_text(path), str(path), error)


def parse_yaml(text: str, name: str, error: type[MoesimError]) -> Document:
    """As :func:`read_yaml`, from text."""
    reader = _EventReader(text, name)
    try:
        data = reader.document()
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line if fault.problem_mark else 0
        if "nesting depth" in str(fault.problem):  # newer parsers scan ahead and have a limit of their own
            raise error.of(f"{name}:{line + 1}", _TOO_DEEP) from None
        raise error.of(f"{name}:{line + 1}", f"not valid YAML: {fault.problem}", _yaml_hint(text, line)) from None
    except yaml.YAMLError as fault:
        raise error.of(name, f"not valid YAML: {str(fault).splitlines()[0]}") from None
    except _TooDeepError as fault:
        raise error.of(f"{name}:{fault}", _TOO_DEEP) from None
    if reader.faults:
        raise error(reader.faults)
    return Document(name, data, reader.lines)


def _yaml_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    if line < len(lines) and "\t" in lines[line]:
        return "indent with spaces, not tabs"
    return "quote text that holds ': ' or ' #', and close every bracket and quote"


class _TooDeepError(Exception):
    """Nesting beyond ``MAX_DEPTH``, and the line that it was found on."""


class _EventReader:
    """Turns YAML events into plain values and notes the line of each."""

    def __init__(self, text: str, name: str):
        self._events: Iterator[Any] = yaml.parse(text, Loader=_PARSER)
        self._name = name
        self.lines: dict[Keys, int] = {}
        self.faults: list[Fault] = []

    def document(self) -> Any:
        """The value of the only document; None where there is none."""
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), ())
        next(self._events)
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            self._fault(after, "a second document begins", "keep one to a file, without '---' between")
        return value

    def _value(self, event: Any, keys: Keys) -> Any:
        line = event.start_mark.line + 1
        if len(keys) > MAX_DEPTH:
            raise _TooDeepError(line)
        self.lines.setdefault(keys, line)
        if event.anchor is not None:
            self._fault(event, "anchors and aliases are not supported", "write it out")
        elif event.tag is not None:
            self._fault(event, f"tags are not supported (got {event.tag!r})", "write the plain value")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(keys)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(keys)
        return None if isinstance(event, yaml.AliasEvent) else self._scalar(event)

    def _mapping(self, keys: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = event.value if isinstance(event, yaml.ScalarEvent) else None
            if key is None:
                self._fault(event, "a key must be plain text", "write it as 'key: value'")
                self._value(event, (*keys, ""))
            elif key in values:
                self._fault(event, f"{'.'.join(map(str, (*keys, key)))}: stands twice", "keep one of them")
            key = key or ""
            self.lines[(*keys, key)] = event.start_mark.line + 1
            values[key] = self._value(next(self._events), (*keys, key))
        return values

    def _sequence(self, keys: Keys) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*keys, len(values))))
        return values

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        is_plain, text = event.implicit[0], event.value
        if not is_plain:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if len(text) > MAX_DIGITS and (_WHOLE.fullmatch(text) or _REAL.fullmatch(text)):
            self._fault(event, f"a number of {len(text)} digits", f"at most {MAX_DIGITS}")
            return None
        return _number(text)

    def _fault(self, event: Any, message: str, hint: str) -> None:
        self.faults.append(Fault(f"{self._name}:{event.start_mark.line + 1}", message, hint))


def _number(text: str) -> Any:
    """The number that a plain scalar is, or the text itself."""
    if _WHOLE.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text.replace("_", ""))
    return float(text.replace(".inf", "inf").replace(".nan", "nan")) if _REAL.fullmatch(text) else text
