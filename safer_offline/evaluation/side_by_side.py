"""A comparison as a table on screen, files, and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from safer_offline.attacks import Natural
from safer_offline.evaluation.colours import LIMIT_COLOUR
from safer_offline.evaluation.comparison import WORST, WORST_CASE, Comparison, Method
from safer_offline.evaluation.plan import EvaluationPlan
from safer_offline.evaluation.profiles import performance_profiles, plot_profiles
from safer_offline.evaluation.rendering import (
    as_text,
    draw_limit,
    figure_files,
    plot_strips,
    write_all,
)
from safer_offline.evaluation.tables import format_violations, number_cell


class RunOfMethod(NamedTuple):
    """One of the runs behind a comparison."""

    method: str
    """Name of its method."""
    plan: EvaluationPlan
    """What it was evaluated with."""
    results: Path
    """Where its own results lie."""


def comparison_screen(comparison: Comparison) -> Group:
    """The comparison for a terminal: each method, then how the first does beside the others."""
    parts: list[RenderableType] = [_methods_table(comparison)]
    if any(pair["method"] == comparison.methods[0].name for pair in comparison.pairs):
        parts.append(_pairs_table(comparison))
    parts += [Text(f"{sentence}.", style="yellow") for sentence in comparison.unequal_attacks()]
    failures = comparison.gate_failures()
    parts += [Text(f"GATE FAILED: {failure}.", style="bold red") for failure in failures]
    return Group(*parts)


def _title(comparison: Comparison) -> str:
    plan = comparison.plan
    parts = [", ".join(comparison.tasks), f"{plan.episodes} episodes a seed"]
    if len(comparison.multiples) > 1:
        parts.append(f"several budgets ε ({plan.epsilon_units})")
    elif isinstance(plan.epsilon, float):
        parts.append(f"ε = {plan.epsilon:g} ({plan.epsilon_units})")
    else:
        parts.append(f"ε for each coordinate ({plan.epsilon_units})")
    if len(comparison.limits) == 1 and plan.cost_limit is not None:
        parts.append(f"cost limit {plan.cost_limit:g}")
    return ", ".join(parts)


def _methods_table(comparison: Comparison) -> Table:
    table = Table(
        title=_title(comparison),
        caption=_caption(comparison),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
    )
    table.add_column("", overflow="fold")
    headings = ("return", "return\nIQM", "cost", "cost\n95 %", "worst\ntenth", "over\nlimit")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    for position, method in enumerate(comparison.methods):
        if position:
            table.add_section()
        table.add_row(f"[bold]{_heading(comparison, method)}[/]")
        for label, row in _shown(comparison, method):
            table.add_row(f"  {label}", *_cells(row))
    return table


def _heading(comparison: Comparison, method: Method) -> str:
    notes = [f"{method.seeds} seeds"] if method.seeds > 1 else []
    if len(comparison.tasks) > 1:
        notes.append(method.plan.context.env_id)
    if len(comparison.limits) > 1 and method.plan.cost_limit is not None:
        notes.append(f"limit {method.plan.cost_limit:g}")
    return f"{method.name} ({', '.join(notes)})" if notes else method.name


def _shown(comparison: Comparison, method: Method) -> list[tuple[str, dict[str, Any]]]:
    """Without attack, then the worst at each budget, then the worst case of the largest."""
    shown = []
    several = len(comparison.multiples) > 1
    first, last = comparison.multiples[0], comparison.multiples[-1]
    if natural := comparison.row(method, first, Natural.name):
        shown.append((Natural.name, natural))
    for multiple in comparison.multiples:
        worst = comparison.row(method, multiple, WORST)
        if worst and multiple > 0:
            at = f"{_budget(comparison, multiple)} " if several else "worst: "
            shown.append((f"{at}{worst['attack']}", worst))
    if worst_case := comparison.row(method, last, WORST_CASE):
        shown.append((WORST_CASE, worst_case))
    return shown


def _budget(comparison: Comparison, multiple: float) -> str:
    epsilon = comparison.methods[0].reports[multiple][0].epsilon
    return f"{multiple:g} × ε:" if isinstance(epsilon, tuple) else f"ε {epsilon:g}:"


def _cells(row: Mapping[str, Any]) -> list[str]:
    cost = number_cell(row["cost_mean"])
    if not math.isnan(row["cost_limit"]):
        cost = f"[{'green' if row['cost_mean'] <= row['cost_limit'] else 'red'}]{cost}[/]"
    low, high = row["cost_mean_low"], row["cost_mean_high"]
    return [
        number_cell(row["reward_mean"]),
        number_cell(row["reward_iqm"]),
        cost,
        "–" if math.isnan(low) else f"{low:.1f} to {high:.1f}",
        number_cell(row["cost_cvar"]),
        format_violations(row["violation_rate"], row["violation_high"]),
    ]


def _caption(comparison: Comparison) -> str:
    several = any(method.seeds > 1 for method in comparison.methods)
    lines = [
        "IQM: mean of the middle half; worst tenth: mean of the costliest episodes",
        "95 %: of the mean, by resampling episodes" + (" and training seeds" if several else ""),
    ]
    if comparison.limits != [None]:
        worst = ", of the seed that violates most" if several else ""
        lines.append(f"≤: exact bound at 95 % confidence{worst}")
    return "\n".join(lines)


def _pairs_table(comparison: Comparison) -> Table:
    """How the first method does beside each other one at the nominal budget."""
    first, nominal = comparison.methods[0].name, comparison.nominal
    at = "" if len(comparison.multiples) == 1 else f", {_budget(comparison, nominal)[:-1]}"
    table = Table(
        title=f"How probably {first} does better on the same start ({WORST_CASE}{at})",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
    )
    table.add_column("than", overflow="fold")
    for heading in ("higher return", "lower cost"):
        table.add_column(f"{heading}, 95 %", justify="right", no_wrap=True, min_width=22)
    for pair in comparison.pairs:
        if pair["method"] == first and pair["multiple"] == nominal:
            cells = [_probability(pair, name) for name in ("higher_return", "lower_cost")]
            table.add_row(pair["other"], *cells)
    return table


def _probability(pair: Mapping[str, Any], name: str) -> str:
    low, high = pair[f"{name}_low"], pair[f"{name}_high"]
    text = f"{pair[name]:.0%}"
    return text if math.isnan(low) else f"{text} ({low:.0%} to {high:.0%})"


def comparison_json(comparison: Comparison, runs: Mapping[str, RunOfMethod]) -> str:
    """Everything as JSON: each run, each method, each pair; unknown is null.

    Args:
        comparison: What to tell.
        runs: The runs by their paths.
    """
    document = {
        "config": {name: run.plan.to_json() for name, run in runs.items()},
        "runs": [
            {"run": name, "method": run.method, "results": str(run.results)}
            for name, run in runs.items()
        ],
        "summary": comparison.rows,
        "improvements": comparison.pairs,
        "unequal_attacks": comparison.unequal_attacks(),
        "gate_failures": comparison.gate_failures(),
    }
    return as_text(document)


def save_comparison(
    comparison: Comparison, runs: Mapping[str, RunOfMethod], out_dir: str | Path
) -> list[Path]:
    """Write comparison.csv, improvements.csv, profiles.csv, comparison.json, and two figures.

    The figures, comparison and profiles, are written as PNG and as SVG.

    Args:
        comparison: What to write.
        runs: See `comparison_json`.
        out_dir: Folder; made if it does not exist.

    Returns:
        The files, in the order above.
    """
    profiles = performance_profiles(comparison)
    limit = comparison.limits[0] if len(comparison.limits) == 1 else None
    return write_all(
        {
            "comparison.csv": comparison.summary().to_csv(index=False).encode(),
            "improvements.csv": comparison.improvements().to_csv(index=False).encode(),
            "profiles.csv": profiles.to_csv(index=False).encode(),
            "comparison.json": comparison_json(comparison, runs).encode(),
            **figure_files("comparison", plot_comparison(comparison)),
            **figure_files("profiles", plot_profiles(profiles, limit=limit)),
        },
        out_dir,
    )


def plot_comparison(comparison: Comparison) -> Figure:
    """Each method's episodes under their worst attack; with several budgets, its curves."""
    methods = comparison.methods
    figure = Figure(figsize=(9.5, 2.5 + 0.4 * len(methods)), layout="constrained")
    figure.suptitle(_title(comparison), fontsize=11)
    if len(comparison.multiples) > 1:
        figure.set_figheight(3.8)
        _plot_curves(figure, comparison)
        return figure
    figure.supxlabel(
        "each episode under the attack that harms it most; bars: mean ± standard deviation",
        fontsize=9,
        color=LIMIT_COLOUR,
    )
    left, right = figure.subplots(1, 2, sharey=True)
    scores = [method.scores(comparison.multiples[0], WORST_CASE) for method in methods]
    unsafe = [
        method.plan.cost_limit is not None and float(costs.mean()) > method.plan.cost_limit
        for method, (_, costs) in zip(methods, scores, strict=True)
    ]
    plot_strips(left, [returns.ravel() for returns, _ in scores], unsafe)
    plot_strips(right, [costs.ravel() for _, costs in scores], unsafe)
    left.set_xlabel("episode return")
    left.set_yticks(range(len(methods)), [method.name for method in methods])
    left.set_ylim(len(methods) - 0.5, -0.5)
    right.set_xlabel("episode cost")
    if len(comparison.limits) == 1 and comparison.plan.cost_limit is not None:
        draw_limit(right, comparison.plan.cost_limit)
    return figure


def _plot_curves(figure: Figure, comparison: Comparison) -> None:
    left, right = figure.subplots(1, 2)
    for axes, column, label in (
        (left, "cost_mean", "mean cost, worst attack"),
        (right, "reward_mean", "mean return, worst attack"),
    ):
        for method in comparison.methods:
            _plot_curve(axes, comparison, method, column)
        axes.set_ylabel(label)
        single = isinstance(comparison.plan.epsilon, float)
        axes.set_xlabel("ε" if single else "multiple of ε")
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    for limit in comparison.limits:
        if limit is not None:
            left.axhline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2, zorder=1)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9,
        frameon=False,
    )  # fmt: skip


def _plot_curve(axes: Axes, comparison: Comparison, method: Method, column: str) -> None:
    """One method's mean over budgets, and its interval."""
    rows = [row for m in comparison.multiples if (row := comparison.row(method, m, WORST))]
    positions = [
        row["epsilon"] if isinstance(row["epsilon"], float) else row["multiple"] for row in rows
    ]
    (line,) = axes.plot(positions, [row[column] for row in rows], marker="o", label=method.name)
    # Where all episodes are alike there is no interval.
    low, high = (
        [row[column] if math.isnan(row[end]) else row[end] for row in rows]
        for end in (f"{column}_low", f"{column}_high")
    )
    axes.fill_between(positions, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
