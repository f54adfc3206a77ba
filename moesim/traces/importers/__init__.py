"""Routing traces from other projects' formats: one module per format, found by its name.

``neutral.py`` is the simplest to read. A module ``some_format`` defines ``import_some_format(path, *, options...)``;
the keyword-only arguments are the format's options, typed, and those without a default are what the format itself does
not say. Nothing is guessed: a missing option is an error that names it.
"""

from moesim.traces.importers._table import IMPORTERS, import_trace, options_of

__all__ = ["IMPORTERS", "import_trace", "options_of"]
