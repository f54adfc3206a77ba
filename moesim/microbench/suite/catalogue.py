"""All benchmarks by name."""

from __future__ import annotations

from collections.abc import Iterable

from moesim.errors import Fault, MicrobenchError, nearest
from moesim.microbench.suite import cuda, host
from moesim.microbench.suite.bench import Bench

#: In the order in which they run: the machine's first, then the GPU's.
BENCHES: tuple[Bench, ...] = (*host.BENCHES, *cuda.BENCHES)
_BY_NAME = {bench.name: bench for bench in BENCHES}


def bench_named(name: str) -> Bench:
    """The benchmark of that name.

    Raises:
        MicrobenchError: there is none.
    """
    if name not in _BY_NAME:
        raise MicrobenchError.of("", f"unknown benchmark {name!r}", nearest(name, _BY_NAME))
    return _BY_NAME[name]


def chosen(names: Iterable[str]) -> list[Bench]:
    """The named benchmarks in the suite's order; all of them where none is named.

    Raises:
        MicrobenchError: a name is unknown; all of those at once.
    """
    wanted = [name.strip() for name in names if name.strip()]
    unknown = [name for name in wanted if name not in _BY_NAME]
    if unknown:
        raise MicrobenchError([Fault("--only", f"unknown benchmark {n!r}", nearest(n, _BY_NAME)) for n in unknown])
    return [bench for bench in BENCHES if not wanted or bench.name in wanted]
