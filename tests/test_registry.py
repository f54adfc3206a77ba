"""Names to modules and cards."""

import pytest

from moesim.errors import CardError, PolicyError
from moesim.registry import card_path, card_paths, load_module, modules_in, name_of_module


def test_a_module_is_named_by_its_file():
    assert name_of_module("moesim.policies.prefetch.next_gate") == "next-gate"
    assert modules_in("moesim.policies.caching")["lru"] == "moesim.policies.caching.lru"


@pytest.mark.parametrize("name", ["", "..", "lru.py", "os", "moesim.policies.caching.lru", "__init__"])
def test_nothing_but_a_listed_name_is_imported(name):
    with pytest.raises(PolicyError, match="unknown name"):
        load_module("moesim.policies.caching", name, PolicyError)


def test_cards_are_found_by_name_below_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("x.yaml", "b/a.yaml", "b/note.txt"):
        (tmp_path / name).touch()
    assert list(card_paths(tmp_path)) == ["a", "x"]
    assert card_path(tmp_path, "a") == tmp_path / "b" / "a.yaml"
    for name in ("../x", "/etc/passwd", "b/a", ""):
        with pytest.raises(CardError, match="unknown name"):
            card_path(tmp_path, name)
