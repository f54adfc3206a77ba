"""The index of shipped reports: the question and the answer of every page, read from the pages themselves."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

HEAD = """# Reports

Made by `moesim reports build` from the files in `scenarios/` and `traces/`, and compared with them in every run of the
gate (`--check`). Pages are self-contained: open them in a browser. The JSON beside each holds every number.
"""


class _Told(HTMLParser):
    """The text of a page's first heading, and of what answers it."""

    def __init__(self) -> None:
        super().__init__()
        self.question, self.answers = "", [""]
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "h1" or (tag == "p" and ("class", "answer") in attrs):
            self._within = tag
            self.answers += [""] if tag == "p" else []

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "h1":
            self.question += data
        elif self._within:
            self.answers[-1] += data


def index_of(folder: Path, names: list[str]) -> str:
    """A Markdown page that lists reports with their questions and answers.

    Args:
        folder: where the reports are.
        names: their folders below it, in the order to list them; each holds a ``report.html``.
    """
    rows = []
    for name in names:
        told = _Told()
        told.feed((folder / name / "report.html").read_text(encoding="utf-8"))
        answer = " ".join(" ".join(told.answers).split())
        rows.append(f"- **[{' '.join(told.question.split())}]({name}/report.html)**\n  {answer}")
    return HEAD + "\n" + "\n".join(rows) + "\n"
