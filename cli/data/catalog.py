"""`safer-offline data catalog`: the table and pictures of DATASETS.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def catalog_command(
    files: Annotated[list[Path], typer.Argument(help="Dataset files, in the order of the table.")],
    into: Annotated[
        Path,
        typer.Option(
            help="Markdown document to write into, between its two marks (it says which)."
        ),
    ] = Path("DATASETS.md"),
    pictures: Annotated[Path, typer.Option(help="Folder for the pictures, one a quality.")] = Path(
        "docs/datasets"
    ),
) -> None:
    """Write a table and pictures of datasets into a document, from the files alone."""
    from safer_offline.datasets.publishing.catalog import update_catalog

    update_catalog(into, files, pictures=pictures)
    typer.echo(f"Wrote {len(files)} datasets into {into}, pictures into {pictures}/")
