"""Cards of language models: YAML files in ``cards/``, read once and checked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from moesim.documents import read_yaml, validate
from moesim.errors import CardError
from moesim.models.spec import ModelSpec
from moesim.registry import card_path, card_paths

CARDS = Path(__file__).parent / "cards"


def available_models() -> list[str]:
    """Names of all cards, sorted."""
    return list(card_paths(CARDS))


@cache
def load_model(name: str) -> ModelSpec:
    """The language model of that name.

    Raises:
        CardError: no such card (the hint names the nearest), or the card is wrong.
    """
    try:
        path = card_path(CARDS, name)
    except CardError as error:
        raise CardError([replace(fault, place="model") for fault in error.faults]) from None
    return read_model(path)


def read_model(path: Path) -> ModelSpec:
    """The card in a file.

    Raises:
        FileError: the file can't be read.
        CardError: the card is wrong; every fault with its line.
    """
    document = read_yaml(path, CardError)
    spec = validate(document, ModelSpec, CardError)
    if spec.name != path.stem:
        raise CardError.of(document.place(["name"]), f"must be the file's name (got {spec.name!r})", path.stem)
    return spec
