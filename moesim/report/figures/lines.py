"""One look for each line, the same in all figures of a page: colour, marker, and dashes for what is only a bound."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from moesim.report.figures import palette

DASHES = (0, (4, 2))
#: matplotlib's markers as SVG paths around (13, 5).
_MARKS = {
    "o": "M10 5a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "s": "M10.3 2.3h5.4v5.4h-5.4z",
    "^": "M13 1.6l3.4 6h-6.8z",
    "v": "M13 8.4l3.4-6h-6.8z",
    "D": "M13 1.4l3.6 3.6-3.6 3.6-3.6-3.6z",
    "P": "M12 1.8h2v2.2h2.2v2h-2.2v2.2h-2v-2.2h-2.2v-2h2.2z",
    "X": "M11 1.7l2 2 2-2 1.3 1.3-2 2 2 2-1.3 1.3-2-2-2 2-1.3-1.3 2-2-2-2z",
}


@dataclass(frozen=True)
class Style:
    """How one line looks."""

    colour: str
    marker: str
    dashed: bool = False

    def line(self) -> dict[str, Any]:
        """What matplotlib's ``plot`` is given."""
        dashes = {"linestyle": DASHES} if self.dashed else {}
        return {"color": self.colour, "marker": self.marker, "markersize": 3.6, "markeredgewidth": 0} | dashes

    def key(self) -> Markup:
        """A piece of the line, for a legend in HTML."""
        dashes = Markup(' stroke-dasharray="5 3"') if self.dashed else ""
        return Markup(
            '<svg class="line" viewBox="0 0 26 10" aria-hidden="true">'
            '<path d="M0 5h26" stroke="{0}" stroke-width="1.6"{1}/><path d="{2}" fill="{0}"/></svg>'
        ).format(self.colour, dashes, _MARKS[self.marker])


def styles(names: Sequence[str], bounds: Collection[str] = ()) -> dict[str, Style]:
    """A look for each name, by its place; those in ``bounds`` are dashed, in ink or grey."""
    found: dict[str, Style] = {}
    colours = len(palette.SERIES)
    for name in names:
        is_bound = name in bounds
        place = sum(style.dashed == is_bound for style in found.values())
        cycle = palette.BOUNDS if is_bound else palette.SERIES
        marker = palette.MARKERS[(place + place // colours) % len(palette.MARKERS)]
        found[name] = Style(cycle[place % len(cycle)], marker, is_bound)
    return found
