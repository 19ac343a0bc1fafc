"""`safer-offline data convert`: from one format of datasets to another."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safer_offline.cli.data.arguments import Source
from safer_offline.datasets.formats import Fix, Format

if TYPE_CHECKING:
    from safer_offline.datasets.dataset.in_memory import OfflineDataset


def convert_command(
    source: Source,
    to: Annotated[
        Format,
        typer.Option(
            "--to", help="The format to write; our files are valid in DSRL and D4RL, too."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write (not for minari). For dsrl also a folder: the file gets the name "
            "under which DSRL and OSRL look for the task.",
        ),
    ] = None,
    dataset_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="Name of the Minari dataset to write, such as bullet/car-circle/mixed-v1 "
            "(default: the name in the metadata).",
        ),
    ] = None,
    source_format: Annotated[
        Format | None,
        typer.Option("--from", help="Format of the source (default: as it looks)."),
    ] = None,
    cost_from: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column that holds the costs the source lacks: infos/cost, cost, or an info "
            "of a Minari dataset.",
        ),
    ] = None,
    zero_costs: Annotated[
        bool,
        typer.Option("--zero-costs", help="Nothing was unsafe; the metadata will say so."),
    ] = False,
    done_from: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A column that is 1 where an episode ended, cut or not, such as dones. What ended "
            "at --max-episode-steps counts as cut.",
        ),
    ] = None,
    max_episode_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps after which an episode was cut, if the file sets no timeouts."
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="ARRAY=NAME",
            help="An array that has another name in the file: observations=obs, or "
            "infos/qpos=state/qpos to keep a column; may be repeated.",
        ),
    ] = None,
    group: Annotated[
        str, typer.Option(help="The group of the file that the arrays lie in, such as data.")
    ] = "",
    fixes: Annotated[
        list[Fix] | None,
        typer.Option(
            "--fix",
            help="What to mend in a file; may be repeated. terminal-wins: rows with both flags "
            "count as terminated. drop-tail: rows after the last end of an episode are dropped. "
            "derive-next: missing next observations are taken from the following row; rows cut "
            "by a timeout, which have none, are dropped, and rows that terminated repeat their "
            "own. transpose: arrays whose rows and columns are swapped, as MATLAB writes them, are "
            "turned round.",
        ),
    ] = None,
) -> None:
    """Convert a dataset, without loss; what would have to be made up must be asked for.

    What was dropped or made up is reported and written into the description of the dataset.
    """
    from safer_offline.datasets.loading import read_dataset, write_dataset
    from safer_offline.files import require_writable

    if out is not None:
        require_writable(out)
    dataset = read_dataset(
        source,
        source_format=source_format,
        cost_from=cost_from,
        zero_costs=zero_costs,
        done_from=done_from,
        max_episode_steps=max_episode_steps,
        group=group,
        names=_parse_names(names or ()),
        fixes=fixes or (),
    )
    written = write_dataset(dataset, to, out=out, dataset_id=dataset_id)
    typer.echo(
        f"Wrote {written}: {dataset.num_transitions:,} transitions, "
        f"{dataset.num_episodes:,} episodes.\n{_next_step(dataset, to, written, dataset_id)}"
    )


def _parse_names(pairs: Sequence[str]) -> dict[str, str]:
    """`ARRAY=NAME` as given to --map."""
    from safer_offline.errors import UsageError

    names = {}
    for pair in pairs:
        ours, separator, theirs = pair.partition("=")
        if not (ours and separator and theirs):
            raise UsageError(f"--map takes ARRAY=NAME, such as observations=obs, not '{pair}'")
        names[ours] = theirs
    return names


def _next_step(
    dataset: OfflineDataset, target: Format, written: Path, dataset_id: str | None
) -> str:
    """One line on how the peer reads what was written."""
    from safer_offline.datasets.formats.dsrl import file_name, offline_env_id

    if target is Format.minari:
        name = dataset_id or dataset.metadata.name
        return f'Next: minari.load_dataset("{name}"); costs are in infos["cost"][1:]'
    if target is Format.d4rl:
        return (
            f'Next: env.get_dataset("{written}") of d4rl. Its qlearning_dataset leaves out costs '
            "and rows cut by a timeout; sequence_dataset keeps all."
        )
    task = offline_env_id(dataset)
    if target is Format.dsrl and task is not None:
        if written.name == file_name(dataset):
            folder = written.parent.resolve()
            return f"Next: DSRL_DATASET_DIR={folder}, and the task {task} of DSRL or OSRL"
        return (
            f'Next: gymnasium.make("{task}").get_dataset("{written}"). OSRL finds the file only '
            f"under the name {file_name(dataset)}: give --out a folder."
        )
    if target is Format.dsrl:
        return f'Next: env.get_dataset("{written}") of DSRL'
    return f"Next: {shlex.join(['safer-offline', 'train', str(written)])}"
