"""`safer-offline collect`: build a dataset of benign rollouts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """What to write."""

    hdf5 = "hdf5"
    minari = "minari"


def collect_command(
    env: Annotated[
        str, typer.Argument(help="Task: car-circle or ball-circle (or its full id).")
    ] = "car-circle",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write, or the id of the Minari dataset "
            "(default: car_circle.h5, or bullet/car-circle/mixed-v0).",
        ),
    ] = None,
    transitions: Annotated[
        int, typer.Option(help="How many to collect at least; episodes are never cut short.")
    ] = 360_000,
    seed: Annotated[int, typer.Option(help="Same seed, same content.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes; they change no content (default: the cores).")
    ] = None,
    file_format: Annotated[
        Format, typer.Option("--format", help="An HDF5 file, or a local Minari dataset.")
    ] = Format.hdf5,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the HDF5 file if it exists.")
    ] = False,
) -> None:
    """Let scripted behaviour policies drive in the simulator and log what happens.

    An interrupted collection goes on where it stopped when the same command is given again.
    """
    from safer_offline.datasets.collection import collect, collect_to_minari
    from safer_offline.simulation import resolve_environment, short_name

    task = short_name(resolve_environment(env))
    if file_format is Format.minari:
        dataset_id = out or f"bullet/{task}/mixed-v0"
        dataset = collect_to_minari(
            env, dataset_id, transitions=transitions, seed=seed, workers=workers
        )
        where = f"Minari dataset {dataset_id}"
    else:
        path = Path(out or f"{task.replace('-', '_')}.h5")
        dataset = collect(
            env, path, transitions=transitions, seed=seed, workers=workers, overwrite=overwrite
        )
        where = str(path)
    costs = dataset.episodes["cost"]
    typer.echo(
        f"Wrote {where}: {dataset.num_transitions:,} transitions, {dataset.num_episodes:,} "
        f"episodes, {(costs == 0).mean():.0%} of them without cost."
    )
