"""``moesim reports build``: it writes results, pages and an index, and its check sees a change in any of them."""

from __future__ import annotations

import json

import pytest

MANIFEST = "reports:\n  mine:\n    traces: [../trace.npz]\n  other:\n    traces: [../trace.npz]\n"


@pytest.fixture
def reports(moesim):
    folder = moesim.folder / "reports"
    folder.mkdir()
    (folder / "reports.yaml").write_text(MANIFEST)
    assert moesim("reports", "build", "--folder", "reports")[0] == 0
    return folder


def test_what_is_built_holds(moesim, reports):
    assert sorted(str(path.relative_to(reports)) for path in reports.rglob("*.*") if path.is_file()) == [
        "README.md",
        "mine/report.html",
        "mine/trace.json",
        "other/report.html",
        "other/trace.json",
        "reports.yaml",
    ]
    code, out, _ = moesim("reports", "build", "--folder", "reports", "--check")
    assert code == 0
    assert out.count("the numbers hold") == 2


def test_the_index_tells_question_and_answer(reports):
    index = (reports / "README.md").read_text()
    entry = "- **[How much do the tokens of this trace share?](mine/report.html)**\n  "
    assert entry in index
    assert "While decoding, an LRU of 4 experts in each layer hits 56.7 % of lookups" in index
    assert "](other/report.html)" in index


def test_a_changed_number_is_found(moesim, reports):
    path = reports / "mine" / "trace.json"
    data = json.loads(path.read_text())
    data["traces"][0]["tokens"] += 1
    path.write_text(json.dumps(data))
    code, out, err = moesim("reports", "build", "--folder", "reports", "--check")
    assert (code, out) == (2, "reports/other/trace.json: the numbers hold\n")
    assert err.startswith("reports/mine/trace.json: traces[0].tokens was ")


@pytest.mark.parametrize("damage", [lambda path: path.write_text("# Reports\n"), lambda path: path.unlink()])
def test_an_index_that_tells_something_else(moesim, reports, damage):
    damage(reports / "README.md")
    code, _, err = moesim("reports", "build", "mine", "--folder", "reports", "--check")
    assert code == 2
    assert err.startswith("reports/README.md: does not tell what the pages tell")
