"""What an engine runs: a frozen :class:`Setup`, all costs already evaluated into float64 arrays.

Both engines read the same arrays and only add, compare and take maxima, so they can agree to the last bit.
"""

from moesim.setup.memory import MemoryPlan, plan_memory
from moesim.setup.placement import Placement, placement_by, read_placement
from moesim.setup.schedule import Schedule, load_schedule, save_schedule
from moesim.setup.setup import FULL, LOW, STREAMED, Form, LinkDiscipline, Pieces, Rule, Setup, TierSetup

__all__ = [
    "FULL",
    "LOW",
    "STREAMED",
    "Form",
    "LinkDiscipline",
    "MemoryPlan",
    "Pieces",
    "Placement",
    "Rule",
    "Schedule",
    "Setup",
    "TierSetup",
    "load_schedule",
    "placement_by",
    "plan_memory",
    "read_placement",
    "save_schedule",
]
