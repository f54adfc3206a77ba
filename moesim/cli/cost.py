"""``moesim cost``, ``validate`` and ``hardware fit``: operations priced, and the forms held against measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim import units
from moesim.cli.console import JsonOption, out, output_file, output_folder, print_json, print_table, progress
from moesim.errors import CardError
from moesim.units import format_seconds

validate = typer.Typer(help="Hold the cost forms against measurements.", no_args_is_help=True, rich_markup_mode=None)

FitsOption = Annotated[
    list[Path] | None,
    typer.Option("--fits", metavar="CARD", help="Constants from your own table, as `hardware import table` writes."),
]


def cost(
    context: typer.Context,
    operation: Annotated[str, typer.Argument(metavar="OP", help="See above.")],
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", "-s", metavar="NAME=VALUE", help="A size in another spelling: -s tokens=16."),
    ] = None,
    distinct_experts: Annotated[
        float | None, typer.Option(min=1, help="Of a MoE layer, where known; else they follow from --distribution.")
    ] = None,
    fits: FitsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Price one operation, with the terms of the sum and the constants that they rest on.

    Sizes are options: moesim cost moe-layer --gpu h100-sxm --tokens 16 --hidden 2048 --intermediate 768 --experts 128
    --topk 8. OP alone says which it needs, and which it may be given.

    OP: moe-layer, gemm, attention-decode, attention-prefill, dispatch, combine, all-reduce, all-gather,
    reduce-scatter, all-to-all, send-recv, transfer, flash-read, cpu-expert, expert, shared-experts, dense-ffn, router,
    projections, norms, lm-head, sampling, dequantise.
    """
    from moesim.hardware.fits import with_own
    from moesim.studies.price import price

    given = {**_options(context.args), **dict(_size(text) for text in sizes or [])}
    found = price(operation, given, distinct_experts, with_own(fits or []))
    if as_json:
        print_json({**vars(found), "rests_on": [vars(constant) for constant in found.rests_on]})
        return
    whole = found.total_s or 1.0
    rows = [[name, format_seconds(seconds), f"{seconds / whole:.1%}"] for name, seconds in found.terms.items()]
    print_table(["term", "time", "share"], [*rows, ["total", format_seconds(found.total_s), ""]])
    out().print(f"{found.stack}: {_WHOSE[found.constants]} ({found.kind})", markup=False)
    for note in found.notes:
        out().print(note, markup=False)
    out().print()
    before = ["", *(constant.source for constant in found.rests_on)]
    constants = [
        [one.name, f"{one.value:.4g}", one.unit, one.kind, "as above" if one.source == last else one.source]
        for one, last in zip(found.rests_on, before, strict=False)
    ]
    print_table(["constant", "value (SI)", "unit", "kind", "source"], constants)
    for outside in found.extrapolated:
        out().print(f"! extrapolated: {outside}", style="yellow", markup=False)


_WHOSE = {
    "fitted": "constants fitted on this GPU",
    "class": "constants of the class of GPUs, scaled by the datasheet",
    "card": "numbers of the cards",
    "assumed": "assumed",
}


@validate.command("measured")
def measured(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.parquet", help="Measurements, as described in moesim.studies.measured.")
    ],
    table: Annotated[str, typer.Option(help="moe_layer, gemm, attention_decode, collectives, moe_all_to_all, ...")],
    stats: Annotated[
        Path | None,
        typer.Option(help="Workload statistics of MoE layers; default: moe_workload_stats.parquet beside FILE."),
    ] = None,
    fits: FitsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score the cost forms on a table of measurements: errors by GPU, size and slice, naive rooflines beside."""
    from moesim.hardware.fits import with_own
    from moesim.studies.cost_report import validation_lines
    from moesim.studies.validate_measured import validate_table

    with progress("scoring"):
        found = validate_table(file, table, stats, with_own(fits or []))
    if as_json:
        print_json(found.as_json())
        return
    out().print("\n".join(validation_lines(found)), markup=False)
    overall = vars(found.overall)
    scores = ", ".join(f"{name} {value} %" for name, value in overall.items() if name != "n" and value is not None)
    out().print(f"\nall {found.overall.n} rows: {scores or 'none inside of the domain'}", markup=False)
    for note in found.notes:
        out().print(note, markup=False)
    for reason, rows in found.outside.items():
        out().print(f"! outside of the form's domain: {rows} rows ({reason})", style="yellow", markup=False)


@validate.command("costs")
def costs(
    data: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with the measured tables.")],
    folder: Annotated[Path, typer.Option("--out", help="Where the report goes.")] = Path("reports/validation/costs"),
) -> None:
    """Fit and cross-validate the cost forms, leaving out shapes, models and GPUs; write the report."""
    from moesim.studies.cost_report import write_cost_report

    with output_folder(folder) as target, progress("cross-validating") as bar:
        written = write_cost_report(data, target, lambda name: bar.update(bar.task_ids[0], description=name))
    for path in written:
        out().print(f"wrote {path}", markup=False)


def fit(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Parquet files, named after their kind.")],
    gpu: Annotated[str, typer.Option(help="Whose card to write; 'class' for GPUs without measurements.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="The card to write.")],
) -> None:
    """Fit a GPU's constants to measured tables, and write them with their origin and residuals."""
    from moesim.studies import hardware_fit
    from moesim.studies.measured.catalogue import FORMS

    named = {path.stem: path for path in tables}
    with output_file(output), progress("fitting") as bar:
        cards = hardware_fit.fit(named, progress=lambda name: bar.update(bar.task_ids[0], description=name))
        hardware_fit.write_fit_card(hardware_fit.choose_card(cards, gpu), FORMS, output)
    out().print(f"wrote {output}", markup=False)


def _size(text: str) -> tuple[str, float | str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise CardError.of(f"--size {text}", "must be of the form NAME=VALUE", "as in --size tokens=16")
    return name.replace("-", "_"), _value(value)


def _options(words: list[str]) -> dict[str, float | str]:
    """``--tokens 16 --memory=pageable --both-ways`` as sizes."""
    found: dict[str, float | str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise CardError.of(word, "stands where an option is expected", "as in --tokens 16")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "1"
        found[name.replace("-", "_")] = _value(value)
    return found


def _value(text: str) -> float | str:
    """A number, bytes of a quantity such as ``9.4 MB``, or text."""
    for read in (float, lambda words: units.parse(words, "bytes")):
        try:
            return float(read(text))
        except ValueError:
            continue
    return text
