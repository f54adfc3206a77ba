"""A validation as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from moesim.microbench.decode_loop import LoopPrediction
from moesim.microbench.validation import LOOP_TARGETS, Line, LoopErrors, Validation

_HEAD = "| what | rows | median error | 90th percentile | bias | own spread | inside it | target | worst row |"
_RULE = "|---|---:|---:|---:|---:|---:|---:|---|---|"


def markdown(found: Validation, held_out_only: bool = False) -> str:
    """The report's text."""
    return "\n".join(_lines(found, held_out_only)) + "\n"


def _lines(found: Validation, held_out_only: bool) -> Iterator[str]:
    yield f"# {found.card} against its measurements"
    yield ""
    yield f"{found.title}. Result `{found.result_sha256[:8]}` of {found.date}, {found.rows} rows."
    yield f"The card was fitted from {'this' if found.fitted_from_it else 'another'} result."
    yield f"{found.unsound} rows were noisy, contended or wrong and don't count; {found.unpredicted} have no constants."
    yield found.conditions
    if found.older_suite:
        yield "**Measured with an older suite**: the programs' sources have changed since."
    yield ""
    yield "Errors are percent of the measured median. Rows' own spread is the median of (p90 - p10) / p50; beside it"
    yield "stands how many predictions lie inside. Which rows are held out is fixed in `moesim/microbench/suite`."
    for side, title in (("holdout", "Held out: never seen by the fit"), ("fit", "Fitted")):
        if side == "fit" and held_out_only:
            continue
        for heading, lines in (("", found.classes), (" by benchmark", found.benches), (" by group", found.groups)):
            yield from _table(f"{title}{heading}", [line for line in lines if line.side == side])
    yield from _loops(found.loops, found.loop_errors)
    if found.skipped:
        yield from ("", "## Not measured", "")
        yield from (f"- {skipped}" for skipped in found.skipped)


def _table(title: str, lines: Sequence[Line]) -> Iterator[str]:
    if not lines:
        return
    yield from ("", f"## {title}", "", _HEAD, _RULE)
    for line in lines:
        e = line.errors
        target = "" if line.target is None else f"{line.target:g} %: {line.verdict}"
        inside = f"{e.inside / e.rows:.0%}"
        yield (
            f"| {line.name} | {e.rows} | {e.median} % | {e.p90} % | {e.bias:+} % | {e.spread} % | {inside} | {target} "
            f"| {e.worst_error:+} %: {e.worst} |"
        )


def _loops(loops: Sequence[LoopPrediction], errors: LoopErrors | None) -> Iterator[str]:
    """All of it is held out: the simulator knows the loop from the card's other rows alone."""
    if errors is None:
        return
    total, stall = errors.verdicts
    yield from ("", "## The decode loop, predicted by the simulator", "")
    yield f"Medians over {errors.rows} configurations: the time is {errors.total} % off (target {LOOP_TARGETS[0]:g} %:"
    yield f"{total}), the share of stall {errors.stall} points (target {LOOP_TARGETS[1]:g}: {stall})."
    yield ""
    yield "| slots | prefetch | chunk | measured | predicted | error | stall measured | predicted | labels agree |"
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    for loop in loops:
        yield (
            f"| {loop.slots} | {loop.prefetch} | {loop.chunk} | {loop.measured_s * 1e3:.3g} ms | "
            f"{loop.predicted_s * 1e3:.3g} ms | {loop.error_percent:+.1f} % | {loop.measured_stall:.1%} | "
            f"{loop.predicted_stall:.1%} | {loop.labels_agree:.1%} |"
        )


def validation_json(found: Validation) -> str:
    """The saved form."""
    return json.dumps(found.as_json(), indent=1, allow_nan=False) + "\n"
