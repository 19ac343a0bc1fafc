"""Figures as SVG within a page: in its colours, light or dark, and narrow enough for a phone."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from safer_offline.evaluation.colours import LIMIT_COLOUR, SAFE_COLOUR, UNSAFE_COLOUR
from safer_offline.evaluation.curves import draw_attacks, draw_cost_curve
from safer_offline.evaluation.rendering import as_svg, draw_limit, plot_strips
from safer_offline.evaluation.report.documents import EvaluationFiles, Samples
from safer_offline.evaluation.report.markup import Html, escape, tag

WIDTH = 5.2
"""Inches: two beside each other on a desk, one on a phone, with letters of the same size."""

MOST_DOTS = 2_000
MOST_POINTS = 200

# The colours of lines, one after the other.
_CYCLE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
    "#bcbd22", "#17becf",
)  # fmt: skip

# The page says what these colours are, once for light and once for dark.
_COLOURS = {
    LIMIT_COLOUR: "currentColor",
    "#000000": "currentColor",
    "#dddddd": "var(--grid)",
    "#ffffff": "var(--page)",
    SAFE_COLOUR: "var(--safe)",
    UNSAFE_COLOUR: "var(--unsafe)",
    **{colour: f"var(--line-{number})" for number, colour in enumerate(_CYCLE)},
}


class Dot(NamedTuple):
    """A policy among the episodes of its dataset."""

    label: str
    cost: float
    reward: float


class Interval(NamedTuple):
    """A mean by its name, and the ends of its interval, which may be NaN."""

    name: str
    mean: float
    low: float
    high: float


def inline_svg(figure: Figure, *, title: str) -> Html:
    """A figure as an element of a page.

    Its ids are its own, whatever else is on the page; it asks for no other file.

    Args:
        figure: What to draw.
        title: What it shows, for those who cannot see it.
    """
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        text = as_svg(figure, salt=title, transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' (?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", text, count=5)
    text = text.replace("xlink:href", "href")
    for colour, name in _COLOURS.items():
        text = re.sub(colour, name, text, flags=re.I)
    # Of the episodes in `plot_strips`, which would be too faint in the dark.
    text = re.sub(r'fill-opacity: 0\.3(?=[;"])', "fill-opacity: var(--dots)", text)
    prefix = "f" + hashlib.sha256((title + text).encode()).hexdigest()[:10]
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    ids = {name for pair in used for name in pair if name}
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in ids else "", text)
    text = text.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    head = f'<svg class="plot" role="img" aria-label="{escape(title)}"'
    return Html(text.replace("<svg", head, 1).strip())


def captioned(caption: str, *drawings: Html) -> Html:
    """Drawings with a caption, beside each other where there is room."""
    return tag("figure", tag("div", *drawings, class_="plots"), tag("figcaption", caption))


def draw_strips(samples: Samples, *, limit: float, title: str) -> list[Html]:
    """Returns, and costs, of the episodes under each attack: two drawings."""
    drawings = []
    above = [limit < float(costs.mean()) for _, costs in samples.values()]
    for column, what in enumerate(("return", "cost")):
        figure, axes = _empty(height=1.1 + 0.36 * len(samples))
        plot_strips(axes, [pair[column] for pair in samples.values()], above)
        axes.set_xlabel(f"episode {what}")
        axes.set_yticks(range(len(samples)), list(map(_plain, samples)))
        axes.set_ylim(len(samples) - 0.5, -0.5)
        if what == "cost" and not math.isnan(limit):
            _widen(axes, limit)
            draw_limit(axes, limit)
        drawings.append(inline_svg(figure, title=f"{title}: {what} under each attack"))
    return drawings


def draw_budgets(evaluation: EvaluationFiles, *, title: str) -> list[Html]:
    """Cost, and return, against the budget: two drawings."""
    known = not math.isnan(evaluation.limit)
    rows = [row | {"attack": _plain(row["attack"])} for row in evaluation.rows]
    drawings = []
    for column, what in (("cost_mean", "cost"), ("reward_mean", "return")):
        figure, axes = _empty(height=3.2)
        axes.set_prop_cycle(color=_CYCLE)
        if what == "cost":
            limit = evaluation.limit if known else None
            draw_cost_curve(axes, evaluation.points, limit=limit)
        draw_attacks(axes, rows, column)
        axes.set_ylabel(f"mean episode {what}")
        axes.set_xlabel("ε" if isinstance(evaluation.points[-1]["epsilon"], float) else "× ε")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
        drawings.append(inline_svg(figure, title=f"{title}: {what} against the budget"))
    return drawings


def draw_learning(curves: Samples, *, limit: float, title: str) -> Html:
    """The cost that adversaries reached, by the steps that they had learned."""
    figure, axes = _empty(height=2.6)
    for number, (name, (steps, costs)) in enumerate(curves.items()):
        axes.plot(steps, costs, color=_CYCLE[number % 10], marker="o", ms=4, label=_plain(name))
    axes.set_xlabel("steps of the adversary's training")
    axes.set_ylabel("mean cost it causes")
    if not math.isnan(limit):
        axes.axhline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if len(curves) > 1:
        axes.legend(fontsize=8.5, frameon=False)
    _plain_frame(axes)
    return inline_svg(figure, title=title)


def draw_metric(steps: NDArray[np.float64], values: NDArray[np.float64], name: str) -> Html:
    """One number of a training, small."""
    figure = Figure(figsize=(3.2, 1.7), layout="constrained")
    axes = figure.subplots()
    axes.plot(*downsampled(steps, values), color=SAFE_COLOUR, linewidth=1.3)
    axes.set_title(_plain(name), fontsize=9.5, loc="left")
    axes.tick_params(labelsize=8)
    axes.locator_params(nbins=4)
    if values.min() > 0 and values.max() > 100 * values.min():
        axes.set_yscale("log")
    _plain_frame(axes)
    return inline_svg(figure, title=f"{name} over the training")


def downsampled(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `MOST_POINTS` points, each the mean of those that it stands for."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), MOST_POINTS)
    both = [(steps[part].mean(), values[part].mean()) for part in parts]
    return np.array(both).T[0], np.array(both).T[1]


def draw_dataset(
    episodes: pd.DataFrame, *, limit: float, policy: Sequence[Dot], title: str
) -> Html:
    """Cost and return of the episodes of a dataset, and of a policy among them.

    Args:
        episodes: Columns `cost` and `return`. Of many, some are drawn, evenly chosen.
        limit: Largest allowed cost, or NaN.
        policy: Where the policy lies.
        title: See `inline_svg`.
    """
    figure, axes = _empty(height=3.4)
    shown = episodes.iloc[:: math.ceil(len(episodes) / MOST_DOTS)]
    above = shown["cost"] > limit
    for rows, colour in ((shown[~above], SAFE_COLOUR), (shown[above], UNSAFE_COLOUR)):
        axes.scatter(rows["cost"], rows["return"], s=12, alpha=0.45, color=colour, linewidths=0)
    for dot, marker in zip(policy, "o*", strict=False):
        axes.scatter(
            dot.cost, dot.reward, s=90, marker=marker, color=LIMIT_COLOUR, edgecolors="white",
            linewidths=1, zorder=4, label=_plain(dot.label),
        )  # fmt: skip
    axes.set_xlabel("cost of the episode")
    axes.set_ylabel("return of the episode")
    if not math.isnan(limit):
        _widen(axes, limit)
        draw_limit(axes, limit)
    if policy:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    _plain_frame(axes)
    return inline_svg(figure, title=title)


def draw_intervals(rows: Sequence[Interval], *, limit: float, label: str, title: str) -> Html:
    """Means with their intervals, one below the other.

    Args:
        rows: At least one.
        limit: Where to draw the limit, or NaN.
        label: What is measured.
        title: See `inline_svg`.
    """
    figure, axes = _empty(height=1.0 + 0.36 * len(rows))
    for position, (_, mean, low, high) in enumerate(rows):
        colour = UNSAFE_COLOUR if mean > limit else SAFE_COLOUR
        if not (math.isnan(low) or math.isnan(high)):
            axes.plot([low, high], [position] * 2, color=colour, linewidth=2)
        axes.plot(mean, position, "s" if mean > limit else "o", color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [_plain(name) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    if not math.isnan(limit):
        _widen(axes, limit)
        draw_limit(axes, limit)
    _plain_frame(axes)
    axes.tick_params(axis="y", length=0)
    return inline_svg(figure, title=title)


def _empty(*, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _plain_frame(axes: Axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _widen(axes: Axes, limit: float) -> None:
    """Costs from 0 on, and the limit among them."""
    right = max(1.0, limit, axes.get_xlim()[1])
    axes.set_xlim(min(-0.03 * right, axes.get_xlim()[0]), 1.05 * right)


def _plain(name: str) -> str:
    """A name from a file, of which matplotlib makes no formula and no endless line."""
    shown = name if len(name) <= 32 else f"{name[:31]}…"
    return "".join(c if c.isprintable() else "�" for c in shown).replace("$", r"\$")
