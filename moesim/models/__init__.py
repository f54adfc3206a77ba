"""Language models: their shape, and what follows from it.

Where to read first:

1. ``spec`` - the fields of a model, as a configuration file has them; ``attention`` - those of its token mixers.
2. ``parameters`` - every count and size, as pure functions of a spec.
3. ``cards/*.yaml`` - the models. To add one, add a file; nothing else changes.
4. ``precision`` - storage formats of weights, bits exact including scales.

``catalog`` finds and checks cards; ``importer`` makes a card from a Hugging Face ``config.json``.
"""

from moesim.models.catalog import available_models, load_model, read_model
from moesim.models.precision import PRECISIONS, Precision, Precisions, get_precision
from moesim.models.spec import Convention, ModelSpec

__all__ = [
    "PRECISIONS",
    "Convention",
    "ModelSpec",
    "Precision",
    "Precisions",
    "available_models",
    "get_precision",
    "load_model",
    "read_model",
]
