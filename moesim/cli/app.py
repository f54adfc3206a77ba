"""The commands of ``moesim``."""

from __future__ import annotations

from typing import Annotated

import typer

from moesim.cli import (
    bench,
    capture,
    cards,
    check,
    compare,
    cost,
    hardware_import,
    microbench,
    optimum,
    plan,
    replay,
    report,
    run,
    sweep,
    trace,
)
from moesim.cli.console import set_flags
from moesim.version import __version__

app = typer.Typer(
    help="Simulate mixture-of-experts inference: how fast, limited by what, what would help, what to buy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"moesim {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, timings or warnings on stderr.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""
    del version
    set_flags(debug=debug, quiet=quiet)


app.command("run")(run.run)
app.command("check")(check.check)
app.command("schema")(run.schema)
app.command("cost", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(cost.cost)
app.command("compare")(compare.compare)
app.command("sweep")(sweep.sweep)
app.command("plan")(plan.plan)
app.command("fits")(plan.fits)
app.command("optimum")(optimum.optimum)
app.command("replay")(replay.replay)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.add_typer(report.reports, name="reports")
trace.app.command("capture")(capture.capture)
app.add_typer(trace.app, name="trace")
app.add_typer(cards.models, name="models")
app.add_typer(cards.hardware, name="hardware")
app.add_typer(cost.validate, name="validate")
cost.validate.command("card")(microbench.validate_card)
app.add_typer(microbench.app, name="microbench")
cards.hardware.command("fit")(cost.fit)
cards.hardware.add_typer(hardware_import.app, name="import")
app.add_typer(cards.policies, name="policies")
