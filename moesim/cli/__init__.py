"""The command line: the only place that prints and exits.

``main`` turns errors into one clear message and an exit code: 2 for wrong input, 130 for an interrupt, 1 for a bug.
Read ``run`` first; each command has a module, and ``console`` holds what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moesim.errors import Fault

MAX_SHOWN = 20


def main() -> None:
    """Entry point of ``moesim``."""
    from moesim.cli.app import app
    from moesim.cli.console import fail
    from moesim.errors import MoesimError

    try:
        app(standalone_mode=True)
    except MoesimError as error:
        fail(_shown(error.faults), 2)
    except OSError as error:
        fail(f"{error.filename2 or error.filename or 'the output'}: {error.strerror or error}", 2)
    except MemoryError:
        fail("not enough memory for this input", 2)
    except Exception as error:
        fail(f"this is a bug in moesim ({type(error).__name__}: {error}); `moesim --debug ...` shows where", 1)


def _shown(faults: Sequence[Fault]) -> str:
    more = [f"… and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
    return "\n".join([*map(str, faults[:MAX_SHOWN]), *more])
