"""The benchmarks, their cases, and the split into rows that a fit may see and rows held out: fixed before any data.

``bench`` says what a benchmark is, ``sizes`` which experts are measured; ``host`` and ``cuda`` list the benchmarks of
the two programs.
"""

from moesim.microbench.suite.bench import Bench, Case, Level, Split, case_key
from moesim.microbench.suite.catalogue import BENCHES, bench_named, chosen

__all__ = ["BENCHES", "Bench", "Case", "Level", "Split", "bench_named", "case_key", "chosen"]
