"""The program `safer-offline`: collect, train, foresee, evaluate, report, data."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

import safer_offline.cli
import safer_offline.cli.arithmetic  # first of all that computes
import safer_offline.datasets
from safer_offline.cli import behaviors, data
from safer_offline.cli.check import check_command
from safer_offline.cli.collect import collect_command
from safer_offline.cli.console import accept_every_console
from safer_offline.cli.evaluate import evaluate_command
from safer_offline.cli.foresee import foresee_command
from safer_offline.cli.publish import publish_command
from safer_offline.cli.report import report_command
from safer_offline.cli.train import train_command
from safer_offline.errors import SaferOfflineError
from safer_offline.interruption import Interrupted, interrupt_on_sigterm

app = typer.Typer(
    name="safer-offline",
    help="Offline safe reinforcement learning that stays safe when observations are attacked.\n\n"
    "The usual way: collect a dataset in simulation, train on the file without any simulator, "
    "evaluate the policy under attack, report what was found.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("check")(check_command)
app.command("collect")(collect_command)
app.command("train")(train_command)
app.command("foresee")(foresee_command)
app.command("evaluate")(evaluate_command)
app.command("report")(report_command)
app.command("publish")(publish_command)
app.add_typer(data.app, name="data")
app.add_typer(behaviors.app, name="behaviors")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"safer-offline {version('safer-offline')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run the command line; a `SaferOfflineError` becomes its message and its exit code."""
    warnings.showwarning = _show_warning
    accept_every_console()
    interrupt_on_sigterm()
    try:
        app()
    except SystemExit as end:
        # Typer makes a silent exit of Ctrl-C; behind it is what has to be told.
        if interruption := _behind(end):
            _say_interrupted(interruption)
        raise
    except SaferOfflineError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # Who read what we print has gone, as `head` does.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - so that flushing it cannot fail
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or error
        remedy = "check that it is there, that you may use it, and that the disk has room"
        _fail(f"{place}{reason}\n  Remedy: {remedy}", 1)


def _fail(message: str, exit_code: int) -> None:
    typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)
    sys.exit(exit_code)


def _behind(end: BaseException) -> KeyboardInterrupt | None:
    """The interruption that led to an exit, if one did."""
    error: BaseException | None = end
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _say_interrupted(error: KeyboardInterrupt) -> None:
    """What is kept, and the command that goes on; then the exit code of the signal."""
    known = error if isinstance(error, Interrupted) else Interrupted()
    if known.kept:
        given = [option for option in known.resume if option not in sys.argv]
        command = shlex.join(["safer-offline", *sys.argv[1:], *given])
        typer.echo(f"\nInterrupted: {known.kept}. To go on: {command}", err=True)
    else:
        typer.echo("\nInterrupted; nothing had to be kept.", err=True)
    sys.exit(known.exit_code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Our warnings are for users: without the line of code; others are for developers."""
    packages = (safer_offline, safer_offline.cli, safer_offline.datasets)
    folders = (folder for package in packages for folder in package.__path__)
    if category is UserWarning and any(Path(filename).is_relative_to(f) for f in folders):
        typer.secho("Warning: ", fg="yellow", bold=True, err=True, nl=False)
        typer.echo(str(message), err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        typer.echo(text, err=True, nl=False)
