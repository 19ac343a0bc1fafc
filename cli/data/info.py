"""`safer-offline data info`: how much, how good, how safe, and who acted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safer_offline.cli.data.arguments import AsJson, Source

if TYPE_CHECKING:
    from rich.table import Table

    from safer_offline.datasets.description.summary import DatasetSummary


def info_command(
    source: Source,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw return against cost, one dot an episode, into this picture (PNG, PDF, SVG)."
        ),
    ] = None,
    cost_limit: Annotated[
        float | None,
        typer.Option(help="Report on this limit, too (default: the one in the file)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a dataset: how much, how good, how safe, and who acted."""
    # Here, so that `--help` need not wait for torch.
    from rich.console import Console

    from safer_offline.datasets.description.plots import plot_episodes
    from safer_offline.datasets.description.summary import summarize
    from safer_offline.datasets.loading import load_dataset
    from safer_offline.files import require_writable

    if plot is not None:
        require_writable(plot)
    dataset = load_dataset(source)
    summary = summarize(dataset, cost_limit=cost_limit)
    if plot is not None:
        plot_episodes(dataset, plot, cost_limit=cost_limit)
    if as_json:
        typer.echo(json.dumps({"path": source, **summary.to_json()}, indent=2))
        return
    typer.echo(f"{source}: {summary.env_id or 'environment not named'}")
    console = Console(markup=False)  # names come from the file
    for table in (_sizes(summary), _spreads(summary), _safety(summary)):
        console.print(table)
    if summary.behaviors:
        console.print(_behaviors(summary))
    if plot is not None:
        typer.echo(f"Wrote {plot}")


def _table(*columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    return table


def _sizes(summary: DatasetSummary) -> Table:
    table = _table("", "")
    table.show_header = False
    table.columns[1].justify = "left"
    steps = summary.lengths
    table.add_row("transitions", f"{summary.num_transitions:,}")
    table.add_row("episodes", f"{summary.num_episodes:,}, {summary.terminated_episodes:,} ended")
    table.add_row("steps", f"{steps.minimum:g} to {steps.maximum:g}, {steps.mean:.1f} on average")
    table.add_row("observation", _vector(summary, "observations", summary.observation_size))
    table.add_row("action", _vector(summary, "actions", summary.action_size))
    table.add_row("collected", summary.created_at or "unknown when")
    table.add_row("content hash", summary.content_sha256 or "none")
    return table


def _vector(summary: DatasetSummary, field: str, size: int) -> str:
    from safer_offline.datasets.dataset.constants import describe_constants

    constants = tuple(one for one in summary.constants if one.field == field)
    if not constants:
        return f"{size} numbers"
    return (
        f"{size} numbers; {len(constants)} of them never vary, counted from 0: "
        f"{describe_constants(constants)}"
    )


def _spreads(summary: DatasetSummary) -> Table:
    table = _table(
        "\nper episode", "\nmean", "\nstd", "\nmin", "\n25 %", "\n50 %", "\n75 %", "\nmax"
    )
    for name, spread in (("return", summary.returns), ("cost", summary.costs)):
        table.add_row(name, *(f"{value:.1f}" for value in dataclasses.astuple(spread)))
    return table


def _safety(summary: DatasetSummary) -> Table:
    table = _table("\nsafe at cost limit", "\nepisodes", "\nshare", "\nbest return")
    for safe in summary.safe:
        limit = f"{safe.cost_limit:g}" + (
            " (limit)" if safe.cost_limit == summary.cost_limit else ""
        )
        best = "-" if safe.best_return is None else f"{safe.best_return:.1f}"
        table.add_row(limit, f"{safe.episodes:,}", f"{safe.share:.1%}", best)
    return table


def _behaviors(summary: DatasetSummary) -> Table:
    table = _table(
        "\nbehavior", "\nepisodes", "\nmean return", "\nmean cost", "\ncost from", "\nto"
    )
    for behavior in summary.behaviors:
        table.add_row(
            behavior.name,
            f"{behavior.episodes:,}",
            f"{behavior.mean_return:.1f}",
            f"{behavior.mean_cost:.1f}",
            f"{behavior.minimum_cost:g}",
            f"{behavior.maximum_cost:g}",
        )
    return table
