"""`safer-offline report`: one page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run directory, or a folder with results of `evaluate`. Several are shown one "
            "after the other, and beside each other.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.html",
            help="The page; one that is there is replaced (default: report.html in the first RUN).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write one page about runs: verdict, tables, figures, training, and how to reproduce it all.

    It is one file that needs nothing but a browser. What is missing or damaged is said in it.
    """
    from safer_offline.evaluation.report import write_report

    typer.echo(f"Wrote {write_report(runs, out)}: open it in a browser.")
