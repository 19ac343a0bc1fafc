"""Pictures of datasets, drawn without a display."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.errors import UsageError
from safer_offline.files import make_folder, write_atomically

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
    colors = _colors(sorted(set(_who_acted(dataset))))
    _draw_episodes(axes, dataset, colors=colors, cost_limit=cost_limit)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside right upper", frameon=False, markerscale=2)
    save_figure(figure, path, dpi=150)


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
    # A behaviour has one colour in all of them.
    names = sorted({name for dataset in datasets for name in _who_acted(dataset)})
    labels: dict[str, Artist] = {}
    for axes, dataset in zip(grid.flat, datasets, strict=False):
        _draw_episodes(axes, dataset, colors=_colors(names), cost_limit=None, size=5)
        labels.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    for axes in grid.flat[len(datasets) :]:
        axes.set_axis_off()
    figure.legend(
        labels.values(), labels.keys(), loc="outside lower center", ncols=8, markerscale=3
    )
    save_figure(figure, Path(path), dpi=80)


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a picture, whole or not at all; its ending says of what kind.

    Raises:
        OutputError: If it cannot be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:].lower(), dpi=dpi)
    make_folder(path.parent)
    write_atomically(path, image.getvalue())


def _who_acted(dataset: OfflineDataset) -> pd.Series[Any]:
    """The behaviour of each episode, an empty text where it is not known."""
    episodes = dataset.episodes
    return episodes["behavior"] if "behavior" in episodes else episodes["start"].map(lambda _: "")


def _colors(names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    few = len(names) <= 10
    palette = matplotlib.colormaps["tab10" if few else "turbo"]
    return {
        name: palette(position if few else position / (len(names) - 1))
        for position, name in enumerate(names)
    }


def _draw_episodes(
    axes: Axes,
    dataset: OfflineDataset,
    *,
    colors: Mapping[str, tuple[float, ...]],
    cost_limit: float | None,
    size: float = 12,
) -> None:
    if cost_limit is None:
        cost_limit = dataset.metadata.cost_limit
    episodes = dataset.episodes
    for name, group in episodes.groupby(_who_acted(dataset)):
        axes.scatter(
            group["cost"], group["return"], s=size, alpha=0.6, color=colors[str(name)], label=name
        )
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
