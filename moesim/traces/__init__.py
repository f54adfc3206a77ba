"""Routing traces: which experts each token of a request used in each MoE layer.

Reading guide: ``trace.py`` says what a trace is (:class:`RoutingTrace`, shapes and types), ``card.py`` what it says
about itself, ``checks.py`` what makes its content sound. ``storage.py`` reads and writes format 1, on top of
``array_files.py``, which trusts no file. ``importers/`` has one module per foreign format, ``synthetic.py`` makes
traces out of chance, ``capture.py`` records them from a language model. ``statistics/`` holds the definitions of every
locality figure. ``steps.py`` and ``visits.py`` turn a trace into what the engines run.

What changes a trace (slices, pruning, stand-ins) stands in :mod:`moesim.transforms`; what describes one, in
:mod:`moesim.studies.trace_info`.
"""

from moesim.traces.card import Domain, TraceCard
from moesim.traces.checks import check
from moesim.traces.storage import load_trace, save_trace
from moesim.traces.trace import DECODE, FORMAT, PREFILL, RoutingTrace, expert_dtype, sentinel_of

__all__ = [
    "DECODE",
    "FORMAT",
    "PREFILL",
    "Domain",
    "RoutingTrace",
    "TraceCard",
    "check",
    "expert_dtype",
    "load_trace",
    "save_trace",
    "sentinel_of",
]
