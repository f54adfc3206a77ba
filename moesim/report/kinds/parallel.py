"""The report of a run on many GPUs, read from its result alone. Words and order are in ``parallel.html.j2``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from markupsafe import Markup

from moesim.report import formats
from moesim.report.figures import parallel as drawn
from moesim.report.figures.canvas import draw
from moesim.report.figures.palette import EVIDENCE
from moesim.report.kinds.run import STATUS, WORTH_SAYING, Figure
from moesim.report.render import given, render, split_warning
from moesim.results.parallel import Load, ParallelResult
from moesim.results.result import load_versioned
from moesim.units import format_seconds

FILE = "parallel.json"


def page(path: Path) -> str:
    """The page of a saved result.

    Raises:
        ResultError: it can't be read.
    """
    return render_parallel(load_versioned(path, ParallelResult))


def render_parallel(result: ParallelResult) -> str:
    """A result as one self-contained HTML page: the same result gives the same bytes."""
    cluster = result.hardware
    return render(
        "parallel.html.j2",
        result=result,
        title=f"{result.model['name']} on {cluster['gpus']} GPUs of {cluster['name']}",
        question=result.question or "How fast is this, and what limits it?",
        answer=answer(result),
        headline=headline(result),
        warnings=[split_warning(warning) for warning in result.warnings],
        breakdown=sorted(result.breakdown, key=lambda part: (part.name.startswith("waiting"), -part.seconds)),
        of_part=drawn.of_part,
        figures=figures(result),
        bounds=[(bound, STATUS[bound.status]) for bound in result.bounds],
        evidence_shares=[(kind, result.evidence_shares[kind]) for kind in EVIDENCE if kind in result.evidence_shares],
        inputs=inputs(result),
        scenario=yaml.safe_dump(given(result.scenario), sort_keys=False, allow_unicode=True, width=100),
    )


def answer(result: ParallelResult) -> str:
    """One or two sentences: how fast, bound by what, and what would help most."""
    head, found = result.headline, result.bottleneck
    rate = f"{formats.number(head.tokens_per_s)} tokens/s over {result.degrees['gpus']} GPUs"
    bound = f"Bound by {found.bound_by}: {formats.percent(found.share)} of the time"
    helpful = [
        change for change in found.what_if or () if change.speedup >= WORTH_SAYING and "bound" not in change.meaning
    ]
    buys = "; ".join(f"{change.change} buys {change.speedup:.2f}×" for change in helpful[:2])
    return f"{format_seconds(head.step_s.p50)} a step, {rate}. {bound}{f'; {buys}' if buys else ''}."


def headline(result: ParallelResult) -> Iterator[Figure]:
    """The numbers that the report opens with."""
    head = result.headline
    step, unit = format_seconds(head.step_s.p50).split(" ")
    yield Figure("Step, median", step, unit, f"p99 {format_seconds(head.step_s.p99)} over {head.step_s.n} steps")
    yield Figure(
        "Throughput",
        formats.number(head.tokens_per_s),
        "tokens/s",
        f"{formats.number(head.tokens_per_s_per_gpu)} per GPU",
    )
    yield Figure("Imbalance", f"{head.imbalance:.2f}", "×", "pairs of the fullest rank over the mean, mean over layers")
    exposed = f"{100 * head.exposed_share:.1f}"
    yield Figure("Exposed exchange", exposed, "%", f"and {formats.percent(head.waiting_share)} waiting for slower GPUs")
    yield Figure("GPUs that a token reaches", f"{head.reached_gpus:.2f}", "", f"of {result.degrees['gpus']}")
    verdict, _, told = result.memory.verdict.partition(": ")
    yield Figure("Memory", verdict, "", told)


def loads(result: ParallelResult) -> list[tuple[str, Load]]:
    """The placement of the run, with the contiguous one before it where that is another."""
    own = str(result.policies["placement"]["name"])
    more = int(result.scenario["parallel"]["redundant_experts"])
    name = own + (f" +{more}" if more else "")
    if result.replication is None or (own == "contiguous" and not more):
        return [(name, result.load)]
    return [("before: contiguous", result.replication.before), (f"after: {name}", result.load)]


def figures(result: ParallelResult) -> Mapping[str, Markup]:
    """Every figure that this result has data for."""
    shown = loads(result)
    found = {
        "breakdown": draw(
            drawn.breakdown, result, height_in=1.0, alt="Shares of the time: computing and waiting, mean over GPUs"
        ),
        "ranks": draw(drawn.ranks, shown, height_in=2.0 * len(shown) + 0.3, alt="Load of each rank in each layer"),
        "traffic": draw(drawn.traffic, shown, height_in=2.4 if len(shown) > 1 else 3.4, alt="Bytes between GPUs"),
        "links": draw(
            drawn.links, result, height_in=0.6 + 0.42 * len(result.links), alt="Busy share of each kind of link"
        ),
    }
    if result.exchanges:
        found["exchanges"] = draw(drawn.exchanges, result, height_in=1.5, alt="Time of a layer's dispatch and combine")
    if result.replication is not None:
        rows = result.replication.rows
        found["placements"] = draw(
            drawn.placements, rows, height_in=0.6 + 0.3 * len(rows), alt="Time of a step for each placement"
        )
    return found


def inputs(result: ParallelResult) -> Mapping[str, list[tuple[str, str]]]:
    """What went in, as tables of names and values."""
    counters = result.counters
    parts = {
        "Language model": result.model,
        "Cluster": result.hardware,
        "Degrees of parallelism": result.degrees,
        "Routing trace": result.trace,
        "Policies": result.policies,
        "Counts": {
            "steps": counters.steps,
            "tokens": counters.tokens,
            "(token, expert) pairs": counters.pairs,
            "dropped pairs": counters.dropped,
            "rebalances": counters.rebalances,
            "moved_bytes": counters.moved_bytes,
            "uses of a trace row": f"{counters.trace_reuse:.2f}",
        },
    }
    return {
        title: [(formats.words(key), formats.value(key, item)) for key, item in part.items()]
        for title, part in parts.items()
    }
