"""The command line: the only place that prints and exits.

``main`` turns errors into one clear message and an exit code: 2 for wrong input, 130 for an interrupt, 1 for a bug.
Read ``run`` first; each command has a module, and ``console`` holds what they share.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``moesim``."""
    from moesim.cli.app import app
    from moesim.cli.console import fail, is_debug
    from moesim.errors import MoesimError

    try:
        app(standalone_mode=True)
    except MoesimError as error:
        if is_debug():
            raise
        fail(str(error), 2)
    except KeyboardInterrupt:
        fail("interrupted; nothing half-written was left behind", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if is_debug():
            raise
        fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except MemoryError:
        fail("not enough memory for this input", 2)
    except Exception as error:
        if is_debug():
            raise
        fail(f"this is a bug in moesim ({type(error).__name__}: {error}); `moesim --debug ...` shows where", 1)
