"""What a run found: a :class:`Result` that is saved as JSON, and the arithmetic behind its numbers.

Read ``result`` first: every field says what it means, in which unit. ``metrics`` holds the definitions of TTFT, TPOT
and the distributions.
"""

from moesim.results.result import Result, load_result, save_result

__all__ = ["Result", "load_result", "save_result"]
