"""``moesim hardware import table|nccl-tests|nvbandwidth FILE``: users' own measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.console import out, output_file, print_json, print_table, progress
from moesim.errors import CardError

app = typer.Typer(help="Bring measurements: tables and cards.", no_args_is_help=True, rich_markup_mode=None)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="What the tool printed.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; default: print what was read.")]


@app.command("table")
def table(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="Columns as `moesim validate measured` takes.")],
    kind: Annotated[
        str | None,
        typer.Option("--table", help="moe_layer, gemm, collectives, moe_all_to_all, ...; default: the file's name."),
    ] = None,
    output: OutOption = None,
    gpu: Annotated[str | None, typer.Option(help="Whose card to write, where the table has several GPUs.")] = None,
    stats: Annotated[Path | None, typer.Option(help="Workload statistics of MoE layers.")] = None,
) -> None:
    """Constants fitted to a table, and what it measured: for `hardware: {fits: [CARD]}` and `--fits CARD`."""
    from moesim.studies.hardware_fit import choose_card, write_fit_card
    from moesim.studies.measured.catalogue import FORMS
    from moesim.studies.table_import import import_table

    with progress("fitting"):
        found = import_table(file, kind or file.stem, stats)
    if gpu is None and len(found.cards) > 1:
        raise CardError.of("--gpu", f"{file.name} has several GPUs", f"one of {', '.join(found.cards)}")
    card = choose_card(found.cards, gpu or next(iter(found.cards)))
    if output is not None:
        with output_file(output):
            write_fit_card(card, FORMS, output)
    rows = [
        [
            fit.operation,
            fit.stack,
            fit.rows,
            len(fit.profile.measured) if fit.profile else 0,
            f"{fit.residuals.mape:.1f} %",
            "; ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in fit.fitted_range.items()),
        ]
        for fit in card.fits
    ]
    print_table(["operation", "stack", "rows", "shapes", "fitted within", "inside of"], rows)
    for reason, count in found.outside.items():
        out().print(f"! outside of the form's domain: {count} rows ({reason})", style="yellow", markup=False)
    if output is not None:
        out().print(f"wrote {output}: constants and measurements of {card.name}", markup=False)


@app.command("nccl-tests")
def nccl_tests(
    file: FileArgument,
    gpu: Annotated[str, typer.Option(help="The GPU card that was measured, as in h100-sxm.")],
    output: OutOption = None,
    operation: Annotated[
        str | None,
        typer.Option(help="all_reduce, all_gather, reduce_scatter, all_to_all, send_recv; default: as named."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="For a card (.yaml): the network card to take the rest from.")
    ] = None,
) -> None:
    """A table of collectives (.parquet, .csv) for validate and fit, or a network card (.yaml)."""
    from moesim.hardware import load_gpu
    from moesim.results.result import write_text
    from moesim.studies import hardware_import
    from moesim.studies.measured.nccl_tests import read_nccl_tests

    card = load_gpu(gpu)
    rows = read_nccl_tests(file, operation)
    source = f"nccl-tests, {file.name}"
    if output is None:
        print_json(hardware_import.collectives_table(rows, gpu, source))
        return
    with output_file(output):
        if output.suffix == ".yaml":
            base = like or card.nvlink
            if base is None:
                raise CardError.of("--like", f"{gpu} names no network card to take the rest from", "--like ib-ndr-400")
            write_text(output, hardware_import.network_card_from_nccl(rows, base, output.stem, source))
        else:
            hardware_import.write_table(hardware_import.collectives_table(rows, gpu, source), output)
    told = f"{rows[0].operation} over {rows[0].gpus} GPUs on {rows[0].nodes} nodes, {len(rows)} sizes"
    out().print(f"wrote {output}: {told}", markup=False)


@app.command("nvbandwidth")
def nvbandwidth(
    file: FileArgument,
    like: Annotated[str, typer.Option(help="The card to take the rest from: pcie-5.0-x16, nvlink-4, ...")],
    output: OutOption = None,
) -> None:
    """A link card (host and GPU) or a network card (between GPUs), as the one that it is like."""
    from moesim.hardware.nvbandwidth import read_nvbandwidth
    from moesim.results.result import write_text
    from moesim.studies.hardware_import import card_from_nvbandwidth

    cases = read_nvbandwidth(file).bandwidths()
    if output is None:
        print_json(cases)
        return
    with output_file(output):
        write_text(output, card_from_nvbandwidth(cases, like, output.stem, f"nvbandwidth, {file.name}"))
    out().print(f"wrote {output}", markup=False)
