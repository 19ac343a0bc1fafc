"""Performance profiles: which share of the episodes earns more, or costs more, than a threshold.

Means hide who fails seldom but badly; a profile shows the whole distribution of each method.

Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice",
NeurIPS 2021.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from safer_offline.evaluation import seeds
from safer_offline.evaluation.colours import LIMIT_COLOUR
from safer_offline.evaluation.comparison import WORST_CASE, Comparison

THRESHOLDS = 101
"""From the least to the largest score of all methods."""


def performance_profiles(comparison: Comparison) -> pd.DataFrame:
    """The profiles of return and cost, each episode under the attack that harms it most.

    Returns:
        Columns score (`return` or `cost`), method, threshold, share (of the episodes above it), and
        `low` and `high`, which enclose the share with 95 % confidence at that threshold.
    """
    multiple = comparison.nominal
    tables = []
    for place, name in enumerate(("return", "cost")):
        scores = {m.name: m.scores(multiple, WORST_CASE)[place] for m in comparison.methods}
        every = np.concatenate([of_method.ravel() for of_method in scores.values()])
        thresholds = np.linspace(every.min(), every.max(), THRESHOLDS)
        for method, of_method in scores.items():
            share, low, high = seeds.performance_profile(of_method, thresholds)
            columns = {"threshold": thresholds, "share": share, "low": low, "high": high}
            tables.append(pd.DataFrame({"score": name, "method": method, **columns}))
    return pd.concat(tables, ignore_index=True)


def plot_profiles(profiles: pd.DataFrame, *, limit: float | None = None) -> Figure:
    """Both profiles, a line for each method, with its interval.

    Args:
        profiles: See `performance_profiles`.
        limit: Largest allowed episode cost, if all methods have the same.
    """
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    axes_of = dict(zip(("return", "cost"), figure.subplots(1, 2, sharey=True), strict=True))
    for (name, method), rows in profiles.groupby(["score", "method"], sort=False):
        axes = axes_of[str(name)]
        (line,) = axes.plot(
            rows["threshold"], rows["share"], drawstyle="steps-post", label=str(method)
        )
        axes.fill_between(
            rows["threshold"], rows["low"], rows["high"], step="post", alpha=0.15, linewidth=0,
            color=line.get_color(),
        )  # fmt: skip
    for name, axes in axes_of.items():
        axes.set_xlabel(f"episode {name} τ, each under the attack that harms it most")
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    axes_of["return"].set_ylabel("share of episodes above τ")
    axes_of["return"].set_ylim(-0.02, 1.02)
    if limit is not None:
        axes_of["cost"].axvline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2)
    figure.legend(
        *axes_of["return"].get_legend_handles_labels(), loc="outside lower center", ncols=4,
        fontsize=9, frameon=False,
    )  # fmt: skip
    return figure
