"""The table of import formats, and the way from options given as text to a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call

from moesim.errors import Fault, TraceError, nearest
from moesim.registry import load_module, modules_in
from moesim.traces.trace import RoutingTrace

Importer = Callable[..., RoutingTrace]
_PACKAGE = "moesim.traces.importers"


def _importer(name: str) -> Importer:
    module = load_module(_PACKAGE, name, TraceError)
    function: Importer = getattr(module, f"import_{name.replace('-', '_')}")
    return function


#: Name of a format -> the function that imports it.
IMPORTERS: Mapping[str, Importer] = {name: _importer(name) for name in modules_in(_PACKAGE)}


def import_trace(format_name: str, path: Path, options: Mapping[str, str]) -> RoutingTrace:
    """Import a file, with the format's options given as text, as on a command line.

    Raises:
        TraceError: an unknown format, options that are unknown, missing or of the wrong type (all at once), or
            wrong content.
        FileError: missing, damaged, or not of this format.
    """
    if format_name not in IMPORTERS:
        raise TraceError.of("", f"unknown trace format {format_name!r}", nearest(format_name, IMPORTERS))
    try:
        return validate_call(IMPORTERS[format_name])(path, **options)
    except ValidationError as error:
        raise TraceError([_option_fault(format_name, detail) for detail in error.errors()]) from None


def options_of(format_name: str) -> dict[str, bool]:
    """The options of a format: name -> is it required?"""
    parameters = inspect.signature(IMPORTERS[format_name]).parameters.values()
    return {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}


def _option_fault(format_name: str, detail: Any) -> Fault:
    option = str(detail["loc"][0])
    place = f"{format_name}: {option}"
    if detail["type"] == "unexpected_keyword_argument":
        return Fault(place, "unknown option", nearest(option, options_of(format_name)))
    if detail["type"] == "missing_keyword_only_argument":
        return Fault(place, "is required: the format does not say it", f"give it as {option}=VALUE")
    return Fault(place, f"{detail['msg'].removeprefix('Input ')} (got {detail['input']!r})")
