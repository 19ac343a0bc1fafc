"""Pictures of recorded episodes: where the robot went, where it thought it was, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safer_offline.attacks import Natural
from safer_offline.evaluation.colours import LIMIT_COLOUR, SAFE_COLOUR, UNSAFE_COLOUR
from safer_offline.evaluation.paths import EpisodePath
from safer_offline.evaluation.plane import Plane

_SEEN_COLOUR = "#CC79A7"
_ROOM = 1.15
"""Of the picture, as a multiple of what it must show."""


def plot_paths(
    paths: Sequence[EpisodePath], plane: Plane | None = None, *, title: str = ""
) -> Figure:
    """A column for each recorded episode: the plane above, and what it cost over time below.

    Args:
        paths: Of one evaluation.
        plane: Where observations hold a place; without, there is no map.
        title: Of the whole.
    """
    roles = list(dict.fromkeys(path.role for path in paths))
    heights = [3.2, 1.0] if plane is not None else [1.0]
    figure = Figure(figsize=(4.9 * len(roles), 1.3 + 1.3 * sum(heights)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(len(heights), len(roles), squeeze=False, height_ratios=heights)
    for column, role in enumerate(roles):
        shown = [path for path in paths if path.role == role]
        grid[0, column].set_title(_words(shown), fontsize=10)
        if plane is not None:
            _draw_map(grid[0, column], shown, plane)
        _draw_costs(grid[-1, column], shown)
    _share_limits(list(grid[-1]))
    # The columns say the same, so one legend will do.
    lines: dict[str, Any] = {}
    for axes in grid.flat:
        handles, texts = axes.get_legend_handles_labels()
        lines |= dict(zip(texts, handles, strict=True))
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=3, fontsize=9,
        frameon=False,
    )  # fmt: skip
    return figure


def _words(shown: Sequence[EpisodePath]) -> str:
    costs = ", ".join(f"{path.attack} {path.costs.sum():g}" for path in shown)
    return f"{shown[0].role} episode (number {shown[0].episode}): cost {costs}"


def _draw_map(axes: Axes, shown: Sequence[EpisodePath], plane: Plane) -> None:
    for path in shown:
        true = plane.unit * path.true[:, [plane.x, plane.y]]
        attacked = path.attack != Natural.name
        if attacked:
            seen = plane.unit * path.seen[:, [plane.x, plane.y]]
            axes.plot(
                *seen.T, color=_SEEN_COLOUR, linewidth=0.7, alpha=0.8,
                label=f"{path.attack}: where the policy thinks it is",
            )  # fmt: skip
        axes.plot(*true.T, color=_colour(path), linewidth=1.6, label=f"{path.attack}: where it is")
        costly = path.costs > 0
        axes.scatter(
            true[costly, 0], true[costly, 1], s=14, color=UNSAFE_COLOUR, zorder=4,
            label="a step that costs" if costly.any() else None,
        )  # fmt: skip
    start = plane.unit * shown[0].true[0, [plane.x, plane.y]]
    axes.scatter(
        start[0], start[1], marker="x", s=45, zorder=5,
        color=LIMIT_COLOUR, label="start",
    )  # fmt: skip
    axes.set_xlabel(plane.names[0])
    axes.set_ylabel(plane.names[1])
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    _shade(axes, plane)
    if plane.limits[0] is not None:
        # Round a circle both axes mean the same; straight ahead the map would be a thread.
        axes.set_aspect("equal", adjustable="box")


def _shade(axes: Axes, plane: Plane) -> None:
    """What is unsafe on a map, which shows the limits whole."""
    for limit, span, bounds, widen in (
        (plane.limits[0], axes.axvspan, axes.get_xlim, axes.set_xlim),
        (plane.limits[1], axes.axhspan, axes.get_ylim, axes.set_ylim),
    ):
        if limit is None:
            continue
        edge = max(_ROOM * limit, *(abs(bound) for bound in bounds()))
        widen(-edge, edge)
        for low, high in ((-10 * edge, -limit), (limit, 10 * edge)):
            span(low, high, color=UNSAFE_COLOUR, alpha=0.12, linewidth=0, zorder=0)


def _draw_costs(axes: Axes, shown: Sequence[EpisodePath]) -> None:
    for path in shown:
        axes.plot(
            np.arange(1, len(path.costs) + 1), path.costs.cumsum(), color=_colour(path),
            linewidth=1.6,
        )  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel("cost so far")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _share_limits(panels: Sequence[Axes]) -> None:
    top = max(1.0, *(axes.get_ylim()[1] for axes in panels))
    for axes in panels:
        axes.set_ylim(-0.05 * top, top)


def _colour(path: EpisodePath) -> str:
    return LIMIT_COLOUR if path.attack == Natural.name else SAFE_COLOUR
