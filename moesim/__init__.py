"""moesim: a simulator and cost model for mixture-of-experts inference.

    import moesim
    result = moesim.run("scenarios/quickstart.yaml")
    result.headline.decode_tokens_per_s

To read the code, start at ``scenario.schema`` (what can be asked), then ``engine.offload`` (how it is answered).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moesim.version import __version__

__all__ = ["__version__", "run"]

if TYPE_CHECKING:
    from moesim.api import run


def __getattr__(name: str) -> Any:
    """``run`` is loaded when it is first used, so that ``import moesim`` is quick."""
    if name == "run":
        from moesim.api import run

        return run
    raise AttributeError(f"module 'moesim' has no attribute {name!r}")
