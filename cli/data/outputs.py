"""What the `data` commands that write datasets share: options, and the report at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from safer_offline.datasets.dataset.in_memory import OfflineDataset

Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.", show_default=False)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is written to, if it exists.")
]
Seed = Annotated[int, typer.Option(help="Decides what is drawn; same seed, same content.")]


def report(
    written: Mapping[Path, OfflineDataset],
    *,
    sources: Sequence[OfflineDataset],
    as_json: bool,
    **details: Any,  # noqa: ANN401 - whatever the command has to say in JSON
) -> None:
    """Say what was written and how much of the sources it is.

    Args:
        written: The new datasets by their files, as `save_derived` returns them.
        sources: What they were made from.
        as_json: Whether to print JSON instead of text.
        **details: More entries of the JSON.
    """
    episodes = sum(source.num_episodes for source in sources)
    transitions = sum(source.num_transitions for source in sources)
    if as_json:
        outputs = [
            {
                "path": str(path),
                "episodes": dataset.num_episodes,
                "transitions": dataset.num_transitions,
                "content_sha256": dataset.metadata.content_sha256,
                "parents": list(dataset.metadata.parents),
            }
            for path, dataset in written.items()
        ]
        before = {"episodes": episodes, "transitions": transitions}
        typer.echo(json.dumps({"source": before, "written": outputs, **details}, indent=2))
        return
    for path, dataset in written.items():
        safe = (dataset.episodes["cost"] == 0).mean()
        typer.echo(
            f"Wrote {path}: {dataset.num_episodes:,} of {episodes:,} episodes, "
            f"{dataset.num_transitions:,} of {transitions:,} transitions; {safe:.0%} without cost."
        )
