"""From a trace to another one: part of it, stood in for another model, or with other routing.

Every transform returns a new checked trace and writes itself into the card's chain of transforms. Open ``stand_in.py``
first.
"""

from moesim.transforms.selection import select_requests
from moesim.transforms.stand_in import stand_in

__all__ = ["select_requests", "stand_in"]
