"""`safer-offline data merge`: one dataset from several of one environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safer_offline.cli.data.arguments import AsJson
from safer_offline.cli.data.outputs import Out, Overwrite, report


def merge_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Two or more dataset files, or Minari ids, of one environment.",
            show_default=False,
        ),
    ],
    out: Out,
    license_name: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="NAME",
            help="Licence of the whole (default: the one that all parts have).",
        ),
    ] = None,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Keep one of each episode that occurs twice.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Join datasets of one environment, one after the other.

    The file lists the hashes of its parents, and the column infos/parent_id says which of them
    each row comes from. What the parts disagree on is left out and reported.
    """
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.datasets.storage.provenance import require_new_files, save_derived
    from safer_offline.datasets.transforms.merging import merge_datasets

    require_new_files([out], inputs=[Path(source) for source in sources], overwrite=overwrite)
    datasets = [load_dataset(source) for source in sources]
    merged = merge_datasets(datasets, license=license_name, drop_duplicates=drop_duplicates)
    written = save_derived({out: merged}, overwrite=overwrite)
    report(written, sources=datasets, as_json=as_json, sources_read=sources)
