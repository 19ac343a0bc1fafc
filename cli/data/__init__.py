"""`safer-offline data`: work on dataset files. One module a command."""

from __future__ import annotations

import typer

from safer_offline.cli.data.info import info_command
from safer_offline.cli.data.validate import validate_command

app = typer.Typer(
    help="Work on dataset files: what is in them, and whether they are sound.",
    no_args_is_help=True,
)
app.command("info")(info_command)
app.command("validate")(validate_command)
