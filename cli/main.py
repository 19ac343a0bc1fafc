"""The program `safer-offline`: collect, train, evaluate, data."""

from __future__ import annotations

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
from safer_offline.cli.evaluate import evaluate_command
from safer_offline.cli.publish import publish_command
from safer_offline.cli.train import train_command
from safer_offline.errors import SaferOfflineError

app = typer.Typer(
    name="safer-offline",
    help="Offline safe reinforcement learning that stays safe when observations are attacked.\n\n"
    "The usual way: collect a dataset in simulation, train on the file without any simulator, "
    "evaluate the policy under attack.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("check")(check_command)
app.command("collect")(collect_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
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
    try:
        app()
    except SaferOfflineError as error:
        typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


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
