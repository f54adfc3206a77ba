"""``moesim hardware import nccl-tests|nvbandwidth FILE``: users' own measurements of links."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.console import out, output_file, print_json
from moesim.errors import CardError

app = typer.Typer(help="Bring measurements: tables and cards.", no_args_is_help=True, rich_markup_mode=None)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="What the tool printed.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; default: print what was read.")]


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
