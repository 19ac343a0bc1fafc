"""`safer-offline data filter`: keep the episodes that meet conditions."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from safer_offline.cli.data.arguments import AsJson, Source
from safer_offline.cli.data.outputs import Out, Overwrite, Seed, report
from safer_offline.errors import UsageError

_GRID = "Thin out where many episodes are alike"


class Quality(str, Enum):
    """How the cost of an episode lies to the limit."""

    safe = "safe"
    unsafe = "unsafe"
    boundary = "boundary"
    tempting = "tempting"


def filter_command(
    source: Source,
    out: Out,
    min_return: Annotated[float | None, typer.Option(help="Least return of an episode.")] = None,
    max_return: Annotated[float | None, typer.Option(help="Greatest return.")] = None,
    min_cost: Annotated[float | None, typer.Option(help="Least cost of an episode.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Greatest cost.")] = None,
    min_length: Annotated[int | None, typer.Option(help="Fewest steps of an episode.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most steps.")] = None,
    behavior: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Who acted (see `data info`); may be repeated."),
    ] = None,
    quality: Annotated[
        Quality | None,
        typer.Option(
            help="By the cost C and the limit k. safe: C <= k. unsafe: C > k. boundary: C from "
            "k/2 to 3k/2. tempting: unsafe, and paid better than every safe episode."
        ),
    ] = None,
    cost_limit: Annotated[
        float | None, typer.Option(help="The limit k of --quality (default: the one in the file).")
    ] = None,
    top_return: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Of those that meet all of the above, the share with the highest returns: 0.1 is "
            "the best tenth.",
        ),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Lay a grid over cost and return and thin its fullest cells until at most this "
            "share of the episodes is left.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    max_per_bin: Annotated[
        int | None,
        typer.Option(
            help="Instead of --density: episodes that a cell may keep.", rich_help_panel=_GRID
        ),
    ] = None,
    min_per_bin: Annotated[
        int,
        typer.Option(
            help="Drop cells with fewer episodes (DSRL drops those with 2 or fewer: 3).",
            rich_help_panel=_GRID,
        ),
    ] = 1,
    cost_bins: Annotated[
        int, typer.Option(help="Cells along the cost.", rich_help_panel=_GRID)
    ] = 10,
    return_bins: Annotated[
        int, typer.Option(help="Cells along the return.", rich_help_panel=_GRID)
    ] = 50,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Keep the episodes that meet all conditions given, whole and in their order.

    Bounds belong to the range: --max-cost 10 keeps a cost of 10. Thinning comes last.
    """
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.datasets.storage.provenance import require_new_files, save_derived
    from safer_offline.datasets.transforms.filtering import (
        EpisodeFilter,
        filter_episodes,
        thin_by_density,
    )

    conditions = EpisodeFilter(
        min_return=min_return,
        max_return=max_return,
        min_cost=min_cost,
        max_cost=max_cost,
        min_length=min_length,
        max_length=max_length,
        behaviors=tuple(behavior or ()),
        quality=quality.value if quality else None,
        cost_limit=cost_limit,
        top_return=top_return,
    )
    thinned = density is not None or max_per_bin is not None
    if conditions == EpisodeFilter() and not thinned:
        raise UsageError(
            "there is no condition, so all episodes would be kept; give one, such as --max-cost 10"
        )
    require_new_files([out], inputs=[Path(source)], overwrite=overwrite)
    dataset = load_dataset(source)
    kept = filter_episodes(dataset, conditions) if conditions != EpisodeFilter() else dataset
    removed = {text: int((~met).sum()) for text, met in conditions.judge(dataset).items()}
    if thinned:
        before = kept.num_episodes
        kept = thin_by_density(
            kept,
            density=density,
            max_per_bin=max_per_bin,
            min_per_bin=min_per_bin,
            cost_bins=cost_bins,
            return_bins=return_bins,
            seed=seed,
        )
        removed["thinning"] = before - kept.num_episodes
    written = save_derived({out: kept}, overwrite=overwrite)
    report(written, sources=[dataset], as_json=as_json, removed=removed, seed=seed)
    if not as_json:
        for text, count in removed.items():
            typer.echo(f"  {text} removes {count:,}")
