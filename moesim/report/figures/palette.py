"""One colour for each thing, the same in every figure and table, and told apart by colour-blind readers.

What the GPU does is blue, what it waits for is warm (a queue is the tint of its link), lookups are Tol's "muted"
teal, sand and wine, and evidence runs from teal (measured) to brown (assumed), as in ColorBrewer's BrBG.
"""

from __future__ import annotations

BLUE, SKY, PALE_BLUE = "#0072b2", "#56b4e9", "#b5cfe0"
GREY, INK, FAINT = "#8a8f98", "#1c2430", "#d5d9df"

TIME = {
    "GPU compute": BLUE,
    "GPU memory": SKY,
    "kernel launch": PALE_BLUE,
    "stall: PCIe transfer": "#e69f00",
    "stall: PCIe queue": "#f6d68f",
    "stall: flash read": "#c04a00",
    "stall: flash queue": "#eba67c",
    "stall: room in memory": "#6a3d7c",
    "stall: CPU expert": "#b0568e",
    "stall: CPU queue": "#dfb3cf",
}
LOOKUPS = {"misses": "#882255", "late": "#ddcc77", "hits": "#44aa99"}
EVIDENCE = {"measured": "#01665e", "published": "#5ab4ac", "datasheet": "#d8b365", "assumed": "#8c510a"}
PHASES = {"prefill": "#b0568e", "decode": BLUE}
COMPUTE, STALL = BLUE, "#d97b29"


def is_stall(part: str) -> bool:
    """Whether a part of the breakdown is time that the GPU waited."""
    return part.startswith("stall")


def of_time(part: str) -> str:
    """The colour of a part of the simulated time; grey for one that has none of its own."""
    return TIME.get(part, GREY)


#: Lines of a figure: Okabe and Ito's colours but for yellow, then Tol's wine; what is a bound is ink or grey.
SERIES = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", SKY, "#882255")
BOUNDS = (INK, GREY)
MARKERS = "os^DvPX"
