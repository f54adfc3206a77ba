"""Reports: a saved result as one HTML page that needs nothing beside it. Saved files go in, never the engine.

Read ``kinds/run.py`` first: what the page of a run says, as data. Then ``templates/run.html.j2`` (where it stands and
what each number means) and ``figures`` (one function per figure). ``render`` fills templates and finds the kind of
report for a saved file; ``formats`` turns numbers into text.
``standings`` says who is fastest where, for ``kinds/comparison.py``. To add a report, add one file to ``kinds`` and one
template.
"""

from moesim.report.kinds.comparison import render_comparison
from moesim.report.kinds.run import render_run
from moesim.report.kinds.trace import render_trace
from moesim.report.render import write_report

__all__ = ["render_comparison", "render_run", "render_trace", "write_report"]
