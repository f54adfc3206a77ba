"""``moesim replay``: hits, misses and bytes of a caching policy on a trace, without a clock."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moesim.cli.console import AllowCodeOption, JsonOption, out, output_file, print_json, print_table, progress
from moesim.errors import PolicyError
from moesim.units import format_bytes, parse

if TYPE_CHECKING:
    from rich.progress import Progress

    from moesim.studies.replay import ReplayStudy

#: No cache and no expert is larger; what is beyond is a slip of the unit.
MAX_CAPACITY_BYTES, MAX_EXPERT_BYTES = 2**60, 2**40
#: Of the table; the others are in the JSON.
MAX_ROWS = 24


def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A moesim trace, or a neutral .npz.")],
    policy: Annotated[str, typer.Option(help="A caching policy; `moesim policies list`. Or a file.")] = "lru",
    capacity: Annotated[str | None, typer.Option(help="Cache size, as in 4000MiB.")] = None,
    capacities: Annotated[str | None, typer.Option(help="Several sizes for a curve, as in 500MiB,1GiB,4GiB.")] = None,
    all_sizes: Annotated[
        bool, typer.Option("--all-sizes", help="LRU at every number of experts, in one pass.")
    ] = False,
    scope: Annotated[Literal["global", "layer"], typer.Option(help="One cache, or a share for each layer.")] = "global",
    phase: Annotated[
        Literal["all", "decode"], typer.Option(help="What is counted; prefill fills the cache either way.")
    ] = "all",
    rule: Annotated[
        Literal["reserve", "evict_after", "sequential"], typer.Option(help="When victims leave.")
    ] = "reserve",
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Requests that decode together.")] = 1,
    expert_bytes: Annotated[
        str | None, typer.Option(help="Size of an expert, as in 13.2MB, where the trace does not say it.")
    ] = None,
    train_fraction: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of requests to learn from (not counted).")
    ] = 0.0,
    plot: Annotated[Path | None, typer.Option(help="Write the curve as SVG, PNG or PDF.")] = None,
    allow_code: AllowCodeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Count hits, misses and fetched bytes of a caching policy on a trace."""
    from moesim.studies.replay import load_any_trace, replay_study

    sizes = [] if all_sizes else _capacities(capacity, capacities)
    if all_sizes and (capacity or capacities):
        raise PolicyError.of("--all-sizes", "already says which sizes", "leave out --capacity and --capacities")
    study = replay_study(
        load_any_trace(trace),
        policy,
        expert_bytes=None if expert_bytes is None else _bytes(expert_bytes, "--expert-bytes", MAX_EXPERT_BYTES),
        batch=batch,
        train_fraction=train_fraction,
        allow_code=allow_code,
    )
    with nullcontext() if plot is None else output_file(plot):
        with progress("replaying", total=max(len(sizes), 1) * study.num_visits) as bar:
            points = study.all_sizes(per_layer=scope == "layer", rule=rule, phase=phase) if all_sizes else []
            for place, size in enumerate(sizes):
                advanced = partial(_advance, bar, place * study.num_visits)
                counts = study.count(
                    size,
                    per_layer=scope == "layer",
                    rule=rule,
                    phase=phase,
                    progress=advanced,
                )
                points.append({"capacity_bytes": size, **counts.to_dict()})
        if plot is not None:
            from moesim.report.curves import plot_hit_curve

            plot_hit_curve({policy: points}, study.trace.card.name, plot)
    if as_json:
        print_json(points[0] if capacity is not None else {"policy": policy, "curve": points})
    else:
        _print(_some(points), study)


def _bytes(text: str, option: str, most: int = MAX_CAPACITY_BYTES) -> int:
    try:
        size = round(parse(text, "bytes"))
    except ValueError as error:
        raise PolicyError.of(option, f"{error} (got {text!r})") from None
    if not 1 <= size <= most:
        raise PolicyError.of(option, f"must be from 1 byte to {most >> 40} TiB (got {text!r})", "check the unit")
    return size


def _capacities(capacity: str | None, capacities: str | None) -> list[int]:
    if (capacity is None) == (capacities is None):
        raise PolicyError.of("--capacity", "give one of --capacity, --capacities and --all-sizes", "--capacity 4000MiB")
    if capacity is not None:
        return [_bytes(capacity, "--capacity")]
    assert capacities is not None
    return [_bytes(size, "--capacities") for size in capacities.split(",")]


def _advance(bar: Progress, before: int, done: int) -> None:
    bar.update(bar.task_ids[0], completed=before + done)


def _some(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Not more than a screen of them, the first and the last included."""
    if len(points) <= MAX_ROWS:
        return points
    return [points[round(place * (len(points) - 1) / (MAX_ROWS - 1))] for place in range(MAX_ROWS)]


def _print(points: list[dict[str, Any]], study: ReplayStudy) -> None:
    rows = [
        [
            format_bytes(point["capacity_bytes"]),
            f"{point['capacity_bytes'] / study.largest_bytes:.1f}",
            point["lookups"],
            point["hits"],
            point["misses"],
            "–" if point["hit_rate_per_lookup"] is None else f"{point['hit_rate_per_lookup']:.3%}",
            f"{point['fetched_bytes'] / 2**20:,.1f} MiB",
        ]
        for point in points
    ]
    print_table(["capacity", "experts", "lookups", "hits", "misses", "hit rate per lookup", "fetched"], rows)
    for note in study.notes:
        out().print(note, style="dim", markup=False)
