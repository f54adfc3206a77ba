"""The plain part of YAML, and where things stand."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moesim.documents import Document, parse_yaml, read_text
from moesim.errors import FileError, ScenarioError


def value(text):
    return parse_yaml(f"a: {text}\n", "x", ScenarioError).data["a"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("~", None), ("", None),
        ("010", 10), ("0x1f", 31), ("0o17", 15), ("1_000", 1000), ("1:30", "1:30"), ("-7", -7), ("+7", 7),
        ("1e9", 1e9), ("1.5", 1.5), (".5", 0.5), ("-.inf", -float("inf")), ("2024-01-01", "2024-01-01"),
        ("'1'", "1"), ('"true"', "true"), ("64 GiB", "64 GiB"), ("[1, b]", [1, "b"]), ("{b: {c: 1}}", {"b": {"c": 1}}),
    ],
)  # fmt: skip
def test_plain_values_are_those_of_yaml_1_2(text, read):
    found = value(text)
    assert found == read
    assert type(found) is type(read)


def test_nothing_and_comments_are_no_value():
    assert parse_yaml("", "x", ScenarioError).data is None
    assert parse_yaml("# only this\n", "x", ScenarioError).data is None


def test_every_fault_is_told_with_its_line():
    with pytest.raises(ScenarioError) as raised:
        parse_yaml("a: 1\na: !x 2\nb: &c 3\nd: *c\n", "x", ScenarioError)
    assert [fault.place for fault in raised.value.faults] == ["x:2", "x:2", "x:3", "x:4"]


def test_a_place_is_the_deepest_key_that_stands():
    document = parse_yaml("a:\n  b: [1,\n    2]\n", "x", ScenarioError)
    assert document.place(["a", "b", 1]) == "x:3: a.b.1"
    assert document.place(["a", "b", "c", "d"]) == "x:2: a.b.c.d"
    assert document.place([]) == "x:1"
    assert Document("x", {}, {("a",): 4}, {("a", "b"): "--set a.b=1"}).place(["a", "b"]) == "--set a.b=1: a.b"


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(FileError, match="did you mean 'quickstart"):
        read_text(tmp_path / "quickstrat.yaml")


@given(st.text(max_size=60))
@example("? a\n: b")
@example("- - - {a: [}")
@example("%YAML 9.9\n---\na: 1")
@example("--- a\n... b")
def test_any_text_is_a_document_or_a_clear_error(text):
    with suppress(ScenarioError):
        assert parse_yaml(text, "x", ScenarioError).name == "x"
