"""`safer-offline data sample`: a small dataset from a large one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safer_offline.cli.data.arguments import AsJson, Source
from safer_offline.cli.data.outputs import Out, Overwrite, Seed, report


def sample_command(
    source: Source,
    out: Out,
    episodes: Annotated[
        int | None,
        typer.Option("--episodes", "-n", help="How many episodes to draw.", show_default=False),
    ] = None,
    transitions: Annotated[
        int | None,
        typer.Option(
            help="Instead: draw episodes until there are this many transitions at least; episodes "
            "are never cut short.",
            show_default=False,
        ),
    ] = None,
    stratify: Annotated[
        bool,
        typer.Option(
            "--stratify",
            help="Spread the draw evenly over costs and returns, so that a small sample looks "
            "like the whole.",
        ),
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw whole episodes at random, each with the same chance and none twice."""
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.datasets.storage.provenance import require_new_files, save_derived
    from safer_offline.datasets.transforms.episodes import sample_episodes

    require_new_files([out], inputs=[Path(source)], overwrite=overwrite)
    dataset = load_dataset(source)
    sample = sample_episodes(
        dataset, episodes=episodes, transitions=transitions, seed=seed, stratify=stratify
    )
    written = save_derived({out: sample}, overwrite=overwrite)
    report(written, sources=[dataset], as_json=as_json, seed=seed, stratified=stratify)
