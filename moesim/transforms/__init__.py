"""From a trace to another one: part of it, stood in for another model, or with other routing.

Every transform is a function of a trace, returns a new one and writes itself into the card's chain of transforms. Open
``selection.py`` first (requests, tokens, layers); ``stand_in.py`` repeats layers, ``relabel.py`` prunes and merges
experts, ``by_weight.py`` drops what the gate weighs lightly, ``stretch.py`` makes requests of other lengths.
"""

from moesim.transforms.by_weight import dynamic_top_p, null_experts
from moesim.transforms.relabel import merge, prune
from moesim.transforms.selection import first_tokens, select_layers, select_requests
from moesim.transforms.stand_in import stand_in
from moesim.transforms.stretch import stretch

__all__ = [
    "dynamic_top_p",
    "first_tokens",
    "merge",
    "null_experts",
    "prune",
    "select_layers",
    "select_requests",
    "stand_in",
    "stretch",
]
