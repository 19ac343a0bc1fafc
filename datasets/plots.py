"""Pictures of datasets, drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safer_offline.datasets.dataset import OfflineDataset
from safer_offline.errors import UsageError

FORMATS = (".png", ".pdf", ".svg")


def plot_episodes(
    dataset: OfflineDataset, path: str | Path, *, cost_limit: float | None = None
) -> None:
    """Draw one dot an episode, cost to the right and return upwards, coloured by who acted.

    Args:
        dataset: Whose episodes.
        path: The picture; its ending chooses PNG, PDF or SVG.
        cost_limit: Where to draw the limit; None takes the dataset's own, if it has one.

    Raises:
        UsageError: If the ending is none of these.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot draw {path}: a picture ends in {', '.join(FORMATS)}")
    # A Figure of its own instead of pyplot leaves the caller's figures and backend alone.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    _draw_episodes(axes, dataset, cost_limit=cost_limit)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside right upper", frameon=False, markerscale=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def plot_overview(datasets: Sequence[OfflineDataset], path: str | Path) -> None:
    """Draw what `plot_episodes` draws for several datasets, four beside each other.

    Args:
        datasets: Whose episodes.
        path: The picture.
    """
    columns = min(4, len(datasets))
    rows = math.ceil(len(datasets) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    labels: dict[str, Artist] = {}
    for axes, dataset in zip(grid.flat, datasets, strict=False):
        _draw_episodes(axes, dataset, cost_limit=None, size=5)
        labels.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for axes in grid.flat[len(datasets) :]:
        axes.set_axis_off()
    figure.legend(
        labels.values(), labels.keys(), loc="outside lower center", ncols=8, markerscale=3
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _draw_episodes(
    axes: Axes, dataset: OfflineDataset, *, cost_limit: float | None, size: float = 12
) -> None:
    if cost_limit is None:
        cost_limit = dataset.metadata.cost_limit
    episodes = dataset.episodes
    who = episodes["behavior"] if "behavior" in episodes else episodes["start"].map(lambda _: "")
    groups = list(episodes.groupby(who))
    colors = matplotlib.colormaps["tab10" if len(groups) <= 10 else "turbo"]
    for position, (name, group) in enumerate(groups):
        color = colors(position if len(groups) <= 10 else position / (len(groups) - 1))
        axes.scatter(group["cost"], group["return"], s=size, alpha=0.6, color=color, label=name)
    right = max(float(episodes["cost"].max()), cost_limit or 0.0, 1.0)
    axes.set_xlim(-0.02 * right, 1.02 * right)
    if cost_limit is not None:
        axes.axvline(cost_limit, color="black", linestyle="--", label=f"limit {cost_limit:g}")
        axes.axvspan(axes.get_xlim()[0], cost_limit, color="tab:green", alpha=0.08, linewidth=0)
    axes.set_xlabel("cost of the episode")
    axes.set_ylabel("return of the episode")
    metadata = dataset.metadata
    name = metadata.name or metadata.env_id or (dataset.path.name if dataset.path else "dataset")
    axes.set_title(f"{name}: {dataset.num_episodes:,} episodes", fontsize="medium")
