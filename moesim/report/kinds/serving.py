"""The report of a serving run: what its page says, read from the result alone. Words are in ``serving.html.j2``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from markupsafe import Markup

from moesim.report import formats
from moesim.report.figures import serving
from moesim.report.figures.canvas import draw
from moesim.report.figures.palette import EVIDENCE
from moesim.report.kinds.run import Figure
from moesim.report.render import given, render, split_warning
from moesim.results.result import Distribution
from moesim.results.serving import ServingResult, load_serving_result
from moesim.units import format_seconds

FILE = "serving.json"


def page(path: Path) -> str:
    """The page of a saved result.

    Raises:
        ResultError: it can't be read.
    """
    return render_serving(load_serving_result(path))


def render_serving(result: ServingResult) -> str:
    """A serving result as one self-contained HTML page: the same result gives the same bytes."""
    hardware = result.hardware
    gpus = f"{hardware['replicas']} × {hardware['gpus_per_replica']} {hardware['gpu']}"
    return render(
        "serving.html.j2",
        result=result,
        title=f"{result.model['name']} on {gpus}",
        question=result.question or "How does this deployment serve its load, and what limits it?",
        answer=answer(result),
        headline=headline(result),
        warnings=[split_warning(warning) for warning in result.warnings],
        figures=figures(result),
        distributions=list(distributions(result)),
        inputs=inputs(result),
        evidence_shares=[(kind, result.evidence_shares[kind]) for kind in EVIDENCE if kind in result.evidence_shares],
        scenario=yaml.safe_dump(given(result.scenario), sort_keys=False, allow_unicode=True, width=100),
    )


def answer(result: ServingResult) -> str:
    """Two sentences: how much within what, and what limits it."""
    head = result.headline
    served = f"{formats.number(head.output_tokens_per_s)} output tokens/s and {head.requests_per_s:.3g} requests/s"
    if head.saturated:
        kept = "but requests come faster than that: the queue grows for as long as they come"
    elif head.good_share is not None:
        verdict = "as the SLO asks" if head.slo_met else "fewer than the SLO asks for"
        kept = f"{formats.percent(head.good_share)} of the requests within their limits, {verdict}"
    else:
        kept = f"a mean latency of {format_seconds(head.latency_s.mean if head.latency_s else None)}"
    found = result.bottleneck
    helps = next((what for what in result.what_if or () if what.faster > 1.05), None)
    buys = f"; {helps.change} makes answers {helps.faster:.2g}× as fast" if helps else ""
    return f"{served}, {kept}. Bound by {found.bound_by}: {formats.percent(found.share)} of the time{buys}."


def headline(result: ServingResult) -> Iterator[Figure]:
    """The numbers that the report opens with."""
    head = result.headline
    yield Figure(
        "Throughput",
        formats.number(head.output_tokens_per_s),
        "output tokens/s",
        f"{head.requests_per_s:.3g} requests/s; first arrival to last token",
    )
    yield _spread("TTFT, median", head.ttft_s)
    yield _spread("TPOT, median", head.tpot_s)
    yield _spread("Latency, median", head.latency_s)
    if head.good_share is not None:
        value, unit = formats.percent(head.good_share).split(" ")
        yield Figure("Within the SLO", value, unit, f"goodput {head.goodput_per_s:.3g} requests/s")
    value, unit = formats.percent(head.busy_share).split(" ")
    yield Figure("Busy", value, unit, f"{head.mean_running:.1f} running, {head.mean_waiting:.1f} waiting")
    if head.usd_per_million_output_tokens is not None:
        rent = f"rent of {head.gpus} GPUs, idle or not"
        yield Figure("Cost", f"{head.usd_per_million_output_tokens:.3g}", "USD/M output tokens", rent)


def _spread(name: str, spread: Distribution | None) -> Figure:
    value, _, unit = format_seconds(None if spread is None else spread.p50).partition(" ")
    tail = (
        "no request has it"
        if spread is None
        else f"mean {format_seconds(spread.mean)}, p99 {format_seconds(spread.p99)}"
    )
    return Figure(name, value, unit, tail)


def distributions(result: ServingResult) -> Iterator[tuple[str, str, Distribution]]:
    """Name, meaning and values of every distribution."""
    head = result.headline
    told = {
        "TTFT": ("arrival to first token", head.ttft_s),
        "TPOT": ("per token after the first, by request", head.tpot_s),
        "ITL": ("every gap between tokens", head.itl_s),
        "latency": ("arrival to last token", head.latency_s),
        "queueing": ("arrival to the first step that holds a token of it", head.queue_s),
    }
    for name, (meaning, spread) in told.items():
        if spread is not None:
            yield name, meaning, spread


def figures(result: ServingResult) -> dict[str, Markup]:
    """Every figure, by its place on the page."""
    found = {
        "time": draw(serving.over_time, result, height_in=3.4, alt="Requests in the system and tokens/s over time"),
        "use": draw(serving.time_use, result, height_in=2.6, alt="What the replicas' time went into"),
    }
    if result.requests.ident:
        found["waits"] = draw(
            serving.waits, result, height_in=3.0, alt="Distributions of TTFT, TPOT, queueing, latency"
        )
    return found


def inputs(result: ServingResult) -> dict[str, list[tuple[str, str]]]:
    """What went in, as facts."""
    trace = [("routing", "none: the model has no experts")]
    if result.trace is not None:
        card = result.trace
        trace = [
            ("trace", card["name"]),
            ("recorded from", card["recorded_from"]),
            ("labels", ", ".join(card["labels"]) or "–"),
            ("transforms", ", ".join(card["transforms"]) or "–"),
            ("requests, tokens", f"{card['requests']:,}, {card['tokens']:,}"),
        ]
    counters = result.counters
    return {
        "Model": [(name.replace("_", " "), str(value)) for name, value in result.model.items()],
        "Hardware": [(name.replace("_", " "), str(value)) for name, value in result.hardware.items()],
        "Routing": trace,
        "Counts": [(name.replace("_", " "), f"{value:,}") for name, value in counters.model_dump().items()],
        "A GPU's memory": [(use.name, formats.size(use.bytes)) for use in result.memory],
    }
