"""From a saved file to a page: the templates, and which kind of report a file gets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from moesim.errors import FileError, ResultError
from moesim.registry import load_module, modules_in
from moesim.report import formats
from moesim.report.figures import palette
from moesim.results.result import write_text

_KINDS = "moesim.report.kinds"


@cache
def _environment() -> jinja2.Environment:
    """Templates that escape what they print and refuse names that they were not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    environment.globals["palette"] = palette
    return environment


def render(template: str, **content: Any) -> str:
    """A template of this package, filled."""
    return _environment().get_template(template).render(**content)


def split_warning(warning: str) -> tuple[str, str]:
    """``"stand-in: the routing …"`` -> its subject, and what is said about it."""
    subject, colon, told = warning.partition(": ")
    return (subject, told) if colon and len(subject) < 40 else ("", warning)


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the keys that say nothing."""
    items = {key: given(item) if isinstance(item, Mapping) else item for key, item in settings.items()}
    return {key: item for key, item in items.items() if item not in (None, "", [], {})}


def write_report(saved: Path, out: Path) -> None:
    """Write the page of a saved file.

    Args:
        saved: the file, or the folder that it lies in.
        out: the HTML file to write.

    Raises:
        FileError: the folder holds no file that there is a report for.
        MoesimError: the file can't be read.
    """
    path, kind = _file_in(saved) if saved.is_dir() else (saved, _kind_of(saved))
    write_text(out, kind.page(path))


def kinds() -> dict[str, ModuleType]:
    """Every kind of report, by the name of the file that it shows."""
    modules = (load_module(_KINDS, name, ResultError) for name in modules_in(_KINDS))
    return {module.FILE: module for module in modules}


def _file_in(folder: Path) -> tuple[Path, ModuleType]:
    known = kinds()
    for name, kind in known.items():
        if (folder / name).is_file():
            return folder / name, kind
    raise FileError.of(str(folder), f"holds none of {', '.join(known)}", "name the folder that a run wrote to")


def _kind_of(file: Path) -> ModuleType:
    """By the file's name; another name holds the result of a run."""
    return kinds().get(file.name) or load_module(_KINDS, "run", ResultError)
