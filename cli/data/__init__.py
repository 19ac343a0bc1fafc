"""`safer-offline data`: work on dataset files. One module a command.

info, validate, convert, filter, split, sample, merge, catalog   the commands
arguments, outputs                                               what several of them share
"""

from __future__ import annotations

import typer

from safer_offline.cli.data.catalog import catalog_command
from safer_offline.cli.data.convert import convert_command
from safer_offline.cli.data.filter import filter_command
from safer_offline.cli.data.info import info_command
from safer_offline.cli.data.merge import merge_command
from safer_offline.cli.data.sample import sample_command
from safer_offline.cli.data.split import split_command
from safer_offline.cli.data.validate import validate_command

app = typer.Typer(
    help="Work on datasets: look at them, check them, and make new ones from them.",
    no_args_is_help=True,
)
app.command("info")(info_command)
app.command("validate")(validate_command)
app.command("catalog")(catalog_command)
app.command("convert")(convert_command)
app.command("filter")(filter_command)
app.command("split")(split_command)
app.command("merge")(merge_command)
app.command("sample")(sample_command)
