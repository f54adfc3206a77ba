"""Errors as users read them."""

from moesim.errors import Fault, MoesimError, PolicyError, nearest


def test_an_error_holds_all_faults_in_order():
    error = PolicyError([Fault("a.yaml:1: x", "is wrong", "try y"), Fault("", "is missing")])
    assert str(error) == "a.yaml:1: x: is wrong\n    hint: try y\nis missing"
    assert isinstance(error, MoesimError)
    assert PolicyError.of("p", "m").faults == (Fault("p", "m"),)


def test_the_nearest_name_is_suggested_and_long_lists_are_cut():
    assert nearest("lruu", ["lfu", "lru"]) == "did you mean 'lru'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", map(str, range(100, 150))).endswith("115, … (50 in all)")
