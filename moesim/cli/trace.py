"""``moesim trace``: look at routing traces, report on them, import them, capture them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from moesim.cli.console import JsonOption, out, output_file, output_folder, print_json, print_table, progress
from moesim.errors import TraceError

app = typer.Typer(help="Routing traces: info, report, import, capture.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def info(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE...", help="moesim traces, or neutral .npz files.")],
    phase: Annotated[
        Literal["prefill", "decode", "all"], typer.Option(help="Of several traces side by side.")
    ] = "decode",
    curve: Annotated[
        list[str] | None,
        typer.Option(
            "--curve", metavar="POLICY", help="Caching policies whose hit curves to show; default: lru, belady."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What a trace is like: expert reuse, skew, predictability, hit curves. Several traces: side by side."""
    from moesim.studies.replay import load_any_trace
    from moesim.studies.trace_comparison import side_by_side
    from moesim.studies.trace_info import describe

    loaded = [load_any_trace(path) for path in traces]
    found = [describe(trace, curve_policies=tuple(curve or ("lru", "belady"))) for trace in loaded]
    if as_json:
        cards = (trace.card.model_dump(mode="json") for trace in loaded)
        described = [{"card": card, **info.to_dict()} for card, info in zip(cards, found, strict=True)]
        print_json(described[0] if len(described) == 1 else described)
    elif len(found) == 1:
        _print_info(found[0].to_dict())
    else:
        rows = [[name, *(_number(value, 3) for value in values)] for name, values in side_by_side(found, phase)]
        print_table([phase, *(info.name for info in found)], rows)


@app.command()
def report(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE...", help="moesim traces, or neutral .npz files.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The folder to write trace.json and report.html to.")],
) -> None:
    """Write one page about a trace, or about several side by side."""
    from moesim.report import render_trace
    from moesim.results.result import write_text
    from moesim.results.trace_figures import saved_traces
    from moesim.studies.trace_comparison import described

    figures = []
    with output_folder(out_dir) as folder:
        with progress("describing", total=len(traces)) as bar:
            for found in described(traces):
                figures.append(found)
                bar.advance(bar.task_ids[0])
        saved = saved_traces(figures)
        outputs = {"trace.json": saved.to_json(), "report.html": render_trace(saved)}
        for name, text in outputs.items():
            write_text(folder / name, text)
    out().print("wrote " + ", ".join(str(folder / name) for name in outputs), markup=False)


@app.command("import")
def import_(
    format_: Annotated[str, typer.Argument(metavar="FORMAT", help="As `moesim trace formats` lists them.")],
    file: Annotated[Path, typer.Argument(help="The file to import.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="The moesim trace to write (.npz).")],
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="What the format does not say.")
    ] = None,
) -> None:
    """Turn another project's routing trace into a moesim trace."""
    from moesim.traces import save_trace
    from moesim.traces.importers import import_trace

    trace = import_trace(format_, file, dict(_option(text) for text in options or []))
    with output_file(output):
        save_trace(trace, output)
    shape = f"{trace.num_tokens} tokens, {trace.num_layers} layers, top {trace.top_k} of {trace.num_experts}"
    out().print(f"wrote {output}: {shape}", markup=False)


@app.command()
def formats() -> None:
    """List the formats that can be imported, and their options."""
    from moesim.traces.importers import IMPORTERS, options_of

    rows = []
    for name, function in IMPORTERS.items():
        options = options_of(name)
        shown = ", ".join(option + (" (required)" if needed else "") for option, needed in options.items())
        rows.append([name, (function.__doc__ or "").strip().splitlines()[0], shown])
    print_table(["format", "what it is", "options"], rows)


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise TraceError.of(f"--option {text}", "must be of the form NAME=VALUE", "as in --option num_experts=128")
    return name, value


def _print_info(found: dict[str, Any]) -> None:
    console = out()
    labels = f" ({', '.join(found['labels'])})" if found["labels"] else ""
    console.print(
        f"{found['name']}: routing of {found['model']}, {found['origin']}{labels}", style="bold", markup=False
    )
    console.print(
        f"{found['requests']} requests, {found['tokens']} tokens, {found['layers']} MoE layers, "
        f"top {found['top_k']} of {found['experts']} experts; licence: {found['licence'] or 'unknown'}",
        markup=False,
    )
    if found["tokens_used"] < found["tokens"]:
        console.print(f"figures rest on the first {found['tokens_used']} tokens", style="dim", markup=False)
    for phase, figures in found["phases"].items():
        console.print(f"\n{phase}: {figures['tokens']} tokens", style="bold", markup=False)
        _print_distinct(figures)
        print_table(["figure", "value", "by chance"], _figures(figures))
    curves = found["hit_curves"]
    if curves:
        out().print()
        shares = curves[0]["capacity_share"]
        rows = [
            [f"{share:.1%}", f"{share * found['layers'] * found['experts']:.0f}"]
            + [_number(curve["hit_rate_per_lookup"][point], 3) for curve in curves]
            for point, share in enumerate(shares)
        ]
        title = f"hit rate per lookup of one global cache, first {curves[0]['lookups']} lookups, cold start"
        print_table(["share of all experts", "experts", *(curve["policy"] for curve in curves)], rows, title=title)


def _print_distinct(figures: dict[str, Any]) -> None:
    rows = [
        [
            row["batch"],
            _number(row["sequence"]),
            _number(row["requests"]),
            _number(row["uniform"]),
            row["bound"],
        ]
        for row in figures["distinct"]
    ]
    columns = ["tokens", "of one sequence", "of as many requests", "E(1-(1-k/E)^B)", "min(E, B k)"]
    print_table(columns, rows, title="distinct experts that a batch touches, per layer")
    out().print()


def _figures(figures: dict[str, Any]) -> list[list[str]]:
    def mean(name: str) -> str:
        return _number(figures[name]["mean"], 3)

    rows = [
        ["overlap of consecutive tokens", mean("consecutive_overlap"), _number(figures["chance_overlap"], 3)],
        ["load CV over experts", mean("load_cv"), "0"],
        ["effective experts", mean("effective_experts"), ""],
        ["next layer: information / entropy", mean("next_layer_information"), mean("chance_next_layer_information")],
        ["next layer: recall from a transition table", mean("successor_recall"), mean("popularity_recall")],
    ]
    for distance, recall in figures["lookahead_recall"].items():
        rows.append([f"lookahead {distance}: recall", _number(recall["mean"], 3), ""])
    rows.append(["drift, first half to second (bits)", mean("drift_bits"), mean("chance_drift_bits")])
    for limit, share in list(figures["reuse_within_tokens"].items())[::2]:
        rows.append([f"reused within {limit} tokens", _number(share, 3), ""])
    rows.append(["SRP (segments of 16 tokens)", mean("segment_routing_performance"), ""])
    rows.append(["SCH (2 k slots, segments of 16)", mean("segment_cache_hit_rate"), ""])
    rows.append(
        [
            "one token's cycle (experts; a global LRU needs about that many to hit)",
            _number(figures["cycle_experts"]),
            "",
        ]
    )
    if figures["cycle_bytes"] is not None:
        rows.append(["one token's cycle (MiB)", _number(figures["cycle_bytes"] / 2**20, 1), ""])
    return rows


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
