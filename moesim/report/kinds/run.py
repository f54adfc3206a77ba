"""The report of one run: what its page says, read from the Result alone. Words and order are in ``run.html.j2``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml
from markupsafe import Markup

from moesim.report import formats
from moesim.report.figures import bottleneck, layers, time
from moesim.report.figures.canvas import draw
from moesim.report.figures.palette import EVIDENCE
from moesim.report.render import given, render, split_warning
from moesim.results import Result, load_result
from moesim.results.result import Bound, Distribution, EvidenceRow
from moesim.units import format_seconds

FILE = "result.json"
STATUS = {
    "optimal": "proven: the best that any policy can do",
    "feasible with gap": "best found, not proven",
    "bound only": "a bound: no policy can beat it, and nothing says that one reaches it",
}
FATES = {
    "proposed": "by the policy",
    "redundant": "already there or on its way",
    "withdrawn": "not started before its visit's router spoke",
    "no_room": "not started: nothing could leave for it",
    "started": "transfers to the GPU that began as prefetches",
    "used": "arrived before it was asked for, and was asked for",
    "late": "asked for while it was on its way",
    "wasted": "left, or was left over, without being asked for",
}
#: What-ifs with less than this are not worth a word in the answer.
WORTH_SAYING = 1.03


@dataclass(frozen=True)
class Figure:
    """A headline number: ``value`` of ``name``, and what stands beside it."""

    name: str
    value: str
    unit: str
    beside: str


@dataclass(frozen=True)
class Fate:
    """How many prefetches ended in one way."""

    name: str
    experts: int
    share: float
    meaning: str


@dataclass(frozen=True)
class PhaseShare:
    """A part of the time in the whole run and in each phase; None where the phase has none of it."""

    name: str
    seconds: float
    total: float
    prefill: float | None
    decode: float | None


@dataclass(frozen=True)
class Rest:
    """Constants that share a source, with their values; ``is_set``: a fit's, which come together."""

    names: str
    values: str
    kind: str
    source: str
    is_set: bool = False


@dataclass(frozen=True)
class Resting:
    """Parts of the time that rest on the same constants."""

    names: str
    share: float
    extrapolated: Sequence[str]
    rests: Sequence[Rest]


def page(path: Path) -> str:
    """The page of a saved Result.

    Raises:
        ResultError: it can't be read.
    """
    return render_run(load_result(path))


def render_run(result: Result) -> str:
    """A Result as one self-contained HTML page: the same Result gives the same bytes."""
    return render(
        "run.html.j2",
        result=result,
        title=f"{result.model['name']} on {result.hardware['name']}",
        question=result.question or "How fast is this, and what limits it?",
        answer=answer(result),
        headline=headline(result),
        warnings=[split_warning(warning) for warning in result.warnings],
        breakdown=breakdown(result),
        figures=figures(result),
        bounds=[(bound, STATUS[bound.status], _distance(bound)) for bound in result.bounds],
        residency=residency(result),
        counts=counts(result),
        prefetch=prefetch_fates(result),
        evidence_shares=[(kind, result.evidence_shares[kind]) for kind in EVIDENCE if kind in result.evidence_shares],
        evidence=list(evidence(result.evidence)),
        inputs=inputs(result),
        scenario=yaml.safe_dump(given(result.scenario), sort_keys=False, allow_unicode=True, width=100),
    )


def answer(result: Result) -> str:
    """One or two sentences: how fast, bound by what, and what would help most."""
    head, found = result.headline, result.bottleneck
    rates = []
    if head.decode_tokens_per_s is not None:
        rates.append(f"{formats.number(head.decode_tokens_per_s)} tokens/s while decoding")
    if result.counters.prefill_tokens or not rates:
        rates.append(f"{formats.number(head.output_tokens_per_s)} output tokens/s with prefill")
    bound = f"Bound by {found.bound_by}: {formats.percent(found.share)} of the time"
    helpful = [change for change in found.what_if or () if change.speedup >= WORTH_SAYING][:2]
    buys = "; ".join(f"{change.change} buys {change.speedup:.2g}×" for change in helpful)
    return f"{', '.join(rates)}. {bound}{f'; {buys}' if buys else ''}."


def headline(result: Result) -> Iterator[Figure]:
    """The numbers that the report opens with."""
    head = result.headline
    fetched, read = formats.size(result.counters.fetched_bytes), formats.size(result.counters.flash_bytes)
    yield Figure(
        "Decode rate",
        formats.number(head.decode_tokens_per_s),
        "tokens/s",
        f"{formats.number(head.output_tokens_per_s)} output tokens/s over all, prefill included",
    )
    yield Figure("TPOT, median", *_median(head.tpot_s), _tail(head.tpot_s, "request", "no request decodes"))
    yield Figure("TTFT, median", *_median(head.ttft_s), _tail(head.ttft_s, "request", "the trace has no prefill"))
    yield Figure("Gap between tokens, median", *_median(head.itl_s), _tail(head.itl_s, "gap", "no request decodes"))
    late = f"of which late {formats.percent(head.late_rate_per_lookup)}"
    if result.counters.prefill_tokens:
        decode, decode_late = head.decode_hit_rate_per_lookup, head.decode_late_rate_per_lookup
        late += f"; decode alone {formats.percent(decode)}, late {formats.percent(decode_late)}"
    yield from _economy(result)
    yield Figure("Hit rate per lookup", *_parts(formats.percent(head.hit_rate_per_lookup)), late)
    yield Figure(
        "Fetched per decode token",
        *_parts(formats.size(head.fetched_bytes_per_decode_token)),
        f"to the GPU; {fetched} in all, and {read} read from flash",
    )
    if (changed := result.output_changed).share:
        ways = [(changed.low_precision, "in low precision"), (changed.skipped, "skipped")]
        ways.append((changed.substituted, "by another expert"))
        told = ", ".join(f"{formats.percent(share)} {way}" for share, way in ways if share)
        yield Figure("Output changed", *_parts(formats.percent(changed.share)), f"of gate weight: {told}")


def _economy(result: Result) -> Iterator[Figure]:
    """Energy and money per output token, or why they are unknown."""
    head, found = result.headline, result.economy
    if found is None:
        return
    whole = f"{formats.joules(found.joules)} in all, at the wall socket; assumed"
    beside = "; ".join(found.energy_lacking) or whole
    yield Figure("Energy per output token", *_parts(formats.joules(head.joules_per_output_token)), beside)
    told = "; ".join(f"{row.item}: {row.meaning}" for row in found.money) or "; ".join(found.money_lacking)
    yield Figure("Per million output tokens", *_parts(formats.usd(head.usd_per_million_output_tokens)), told)


def _median(spread: Distribution | None) -> tuple[str, str]:
    return _parts(format_seconds(None if spread is None else spread.p50))


def _tail(spread: Distribution | None, of: str, absent: str) -> str:
    if spread is None:
        return absent
    if spread.n == 1:
        return f"one {of}"
    return f"p99 {format_seconds(spread.p99)}, mean {format_seconds(spread.mean)} over {spread.n:,} {of}s"


def _parts(text: str) -> tuple[str, str]:
    """``"12.3 ms"`` -> number and unit."""
    number, _, unit = text.partition(" ")
    return number, unit


def breakdown(result: Result) -> list[PhaseShare]:
    """Each part of the time with its share of every phase; computing first, then waiting, longest first."""
    parts = result.breakdown
    prefill = {part.name: part.share for part in parts.prefill}
    decode = {part.name: part.share for part in parts.decode}
    rows = [
        PhaseShare(part.name, part.seconds, part.share, prefill.get(part.name), decode.get(part.name))
        for part in parts.total
    ]
    return sorted(rows, key=lambda row: (row.name.startswith("stall"), -row.seconds))


def figures(result: Result) -> Mapping[str, Markup]:
    """Every figure that this Result has data for."""
    what_if, steps = result.bottleneck.what_if, result.steps
    phases = sum(bool(parts) for parts in (result.breakdown.prefill, result.breakdown.decode))
    drawn = {
        "breakdown": draw(
            time.breakdown,
            result,
            height_in=0.9 + 0.5 * phases,
            alt="Shares of the simulated time: what the GPU does, and what it waits for",
        ),
        "steps": draw(time.steps, steps, height_in=2.6, alt="Duration of every step over simulated time"),
        "layer_time": draw(layers.layer_time, result.layers, height_in=2.9, alt="Time of each MoE layer"),
        "lookups": draw(layers.lookups, result.layers, height_in=2.9, alt="Hits, late and misses of each MoE layer"),
        "residency": draw(
            layers.residency, result, height_in=3.1, alt="Share of visits that each expert spends on the GPU"
        ),
    }
    if what_if:
        drawn["speedups"] = draw(
            bottleneck.speedups, what_if, height_in=0.7 + 0.34 * len(what_if), alt="Speed-up of each change"
        )
    if "decode" in steps.phase:
        drawn["latency"] = draw(
            time.latency_distribution, steps, height_in=2.6, alt="Distribution of the duration of decode steps"
        )
    return drawn


def residency(result: Result) -> str:
    """What the heat map shows, and how much fits."""
    held, experts = result.residency, len(result.residency.gpu_share[0])
    slots, all_experts = held.gpu_slots, experts * len(result.layers)
    host = held.host_capacity_bytes
    below = "Host memory holds every expert." if host is None else f"Host memory holds {formats.size(host)} of experts."
    return (
        "Share of all visits (a visit is one MoE layer of one step) at whose end an expert had space on the GPU. "
        f"The GPU's cache holds {formats.size(held.gpu_capacity_bytes)}: {slots:.1f} of {all_experts:,} experts, "
        f"{slots / len(result.layers):.1f} of {experts} per layer in the mean. {below}"
    )


def counts(result: Result) -> Sequence[tuple[str, str]]:
    """Integer counts that a reader may want to check."""
    counters = result.counters
    rows = [
        ("steps", formats.count(counters.steps)),
        ("activations", formats.count(counters.activations)),
        ("lookups", formats.count(counters.lookups)),
        ("hits / late / misses", f"{counters.hits:,} / {counters.late:,} / {counters.misses:,}"),
        ("misses that the CPU computed", formats.count(counters.cpu_lookups)),
        ("experts that left the GPU", formats.count(counters.evictions)),
    ]
    others = {
        "brought for one visit only": counters.streamed_lookups,
        "computed in low precision": counters.low_precision_lookups,
        "not computed": counters.skipped_lookups,
        "computed by another expert": counters.substituted_lookups,
    }
    rows += [(f"lookups {way}", formats.count(count)) for way, count in others.items() if count]
    if counters.overshoot_bytes:
        rows.append(("most held beyond the capacity", formats.size(counters.overshoot_bytes)))
    return rows


def prefetch_fates(result: Result) -> Sequence[Fate]:
    """What became of the experts that the prefetch policy proposed; shares are of these."""
    found = {name: int(getattr(result.counters, f"prefetch_{name}")) for name in FATES}
    whole = found["proposed"] or 1
    return [Fate(formats.words(name), found[name], found[name] / whole, told) for name, told in FATES.items()]


def evidence(rows: Sequence[EvidenceRow]) -> Iterator[Resting]:
    """Parts of the time by what they rest on, in the order of the longest of each."""
    together: dict[str, list[EvidenceRow]] = {}
    for row in rows:
        key = f"{[constant.model_dump() for constant in row.constants]}{row.extrapolated}"
        together.setdefault(key, []).append(row)
    for members in together.values():
        first = members[0]
        names = ", ".join(row.term.partition(", extrapolated")[0] for row in members)
        share = sum(row.share for row in members)
        yield Resting(names, share, first.extrapolated, list(_rests(first)))


def _rests(row: EvidenceRow) -> Iterator[Rest]:
    for (source, kind), group in groupby(row.constants, key=lambda constant: (constant.source, constant.kind)):
        found = list(group)
        if len(found) == 1:
            yield Rest(found[0].name, formats.constant(found[0]), kind, source)
            continue
        family = found[0].name.partition(".")[0]
        told = (
            f"{constant.name.partition('.')[2].replace('_', ' ')} {formats.constant(constant)}" for constant in found
        )
        yield Rest(f"{len(found)} constants of {family.replace('_', ' ')}", ", ".join(told), kind, source, is_set=True)


def inputs(result: Result) -> Mapping[str, Sequence[tuple[str, str]]]:
    """What went in, as tables of names and values."""
    parts = {
        "Language model": result.model,
        "Machine": result.hardware,
        "Routing trace": result.trace,
        "Policies": result.policies,
    }
    return {
        title: [(formats.words(key), formats.value(key, item)) for key, item in part.items()]
        for title, part in parts.items()
    }


def _distance(bound: Bound) -> float | None:
    return bound.ours / bound.value if bound.value else None
