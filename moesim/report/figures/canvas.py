"""From a plotting function to an SVG element that can stand in an HTML page.

matplotlib is imported when the first figure is drawn. Every figure is as wide as a phone's column, so that its text is
as large as the page's; on a wide page two of them stand side by side. The same data give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from markupsafe import Markup, escape

from moesim.errors import FileError
from moesim.report.figures import palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN = 4.3
PNG_DPI = 200
Data = TypeVar("Data")

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "font.family": "DejaVu Sans",  # wide, so that what fits here also fits in the page's font
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": palette.GREY,
    "axes.labelcolor": palette.INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": palette.FAINT,
    "grid.linewidth": 0.5,
    "text.color": palette.INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": palette.GREY,
    "ytick.color": palette.GREY,
    "xtick.labelcolor": palette.INK,
    "ytick.labelcolor": palette.INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 1.0,
    "legend.handletextpad": 0.5,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0,
    "legend.columnspacing": 1.2,
    "lines.linewidth": 1.2,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
#: What is left out of files, so that the same data give the same bytes.
_FILE_METADATA: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


def draw(plot: Callable[[Figure, Data], None], data: Data, *, height_in: float, alt: str) -> Markup:
    """An ``<svg>`` element of what ``plot`` draws.

    Args:
        plot: draws ``data`` on an empty figure and lays out its axes.
        data: what it draws, such as a Result.
        height_in: at a width of ``WIDTH_IN``; the page scales both.
        alt: what a reader who does not see the figure is told.
    """
    file = io.StringIO()
    _save(plot, data, height_in, file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(file.getvalue(), alt)


def save(plot: Callable[[Figure, Data], None], data: Data, *, height_in: float, path: Path) -> None:
    """Write what ``plot`` draws to a file of its own, by its suffix: SVG, PNG or PDF.

    Raises:
        FileError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in _FILE_METADATA:
        raise FileError.of(str(path), f"can't be drawn: {suffix or 'no suffix'}", "use .svg, .png or .pdf")
    file = io.BytesIO()
    _save(
        plot, data, height_in, file, format=suffix[1:], metadata=_FILE_METADATA[suffix], facecolor="white", dpi=PNG_DPI
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.getvalue())


def _save(plot: Callable[[Figure, Data], None], data: Data, height_in: float, file: IO[Any], **options: Any) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE | {"svg.hashsalt": plot.__name__}):
        figure = Figure(figsize=(WIDTH_IN, height_in))
        plot(figure, data)
        figure.savefig(file, **options)


def _inline(svg: str, alt: str) -> Markup:
    """Without what only a file of its own needs: prolog, name spaces, fixed size, and names that recur on the page."""
    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    body = re.sub(r'<g id="[a-zA-Z]+\w*_\d+"', "<g", body)
    return Markup(f'<svg {view[0]} role="img" aria-label="{escape(alt)}">{body}')
