"""The discrete-event engine (SimPy): the reference for time.

Read ``offload`` first: the GPU's process walks through the visits and asks for experts. Then ``transfers`` (one
expert on its way up the tiers), ``links`` (who goes next on a link), ``clock`` (what comes first at equal times) and
``outcome`` (what a run leaves behind); ``timeline`` shows it to Perfetto. ``quickest`` hands long runs to the compiled
replay.
"""

from moesim.engine.offload import simulate
from moesim.engine.outcome import Outcome
from moesim.engine.quickest import Figures, figures_of

__all__ = ["Figures", "Outcome", "figures_of", "simulate"]
