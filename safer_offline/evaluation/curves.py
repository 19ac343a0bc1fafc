"""Cost and return against the budget, as tables on screen, files, and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from safer_offline.attacks import Natural
from safer_offline.evaluation.budgets import BudgetReport
from safer_offline.evaluation.colours import LIMIT_COLOUR, UNSAFE_COLOUR
from safer_offline.evaluation.rendering import (
    as_text,
    figure_files,
    provenance,
    write_all,
)
from safer_offline.evaluation.tables import number_cell, title_of

_WORST = "worst attack"
_WORST_CASE = "worst per episode"


def budget_screen(report: BudgetReport) -> Group:
    """The report for a terminal: return and cost by attack and budget, then what follows."""
    lines = [*conclusions(report), *(f"{remark}." for remark in report.remarks())]
    lines += report.certified()
    return Group(_table(report), *(Text(line) for line in lines))


def conclusions(report: BudgetReport) -> list[str]:
    """In sentences: up to where the limit is kept, and the area under the curve."""
    name = "the multiple" if report.by_coordinate else "ε"
    top = report.position(report.plan.budgets[-1])
    lines = []
    if report.plan.cost_limit is not None:
        lines.append(_how_far(report))
    lines.append(
        f"Area under the cost of the worst attack, {name} from 0 to {top:g}: {report.area():.3g}, "
        f"which is a mean cost of {report.mean_cost():.1f}."
    )
    return lines


def _how_far(report: BudgetReport) -> str:
    limit, safe = report.plan.cost_limit, report.largest_safe()
    unit = " times the budget" if report.by_coordinate else ""
    if math.isnan(safe):
        cost = report.points[0]["cost_mean"]
        return f"The limit of {limit:g} is broken without any attack: cost {cost:.1f}."
    broken = next((p for p in report.points if p["multiple"] > safe), None)
    largest = f"{report.position(safe):g}{unit}"
    if broken is None:
        return (
            f"The worst attack keeps the limit of {limit:g} up to ε = {largest}, the largest tried."
        )
    at = f"{report.position(broken['multiple']):g}{unit}"
    return (
        f"The worst attack keeps the limit of {limit:g} up to ε = {largest}; at {at} "
        f"{broken['attack']} costs {broken['cost_mean']:.1f}."
    )


def _table(report: BudgetReport) -> Table:
    """Attacks in rows, budgets in columns; costs above, returns below."""
    table = Table(title=_title(report), box=box.SIMPLE_HEAD, padding=(0, 0))
    table.add_column("cost", no_wrap=True)
    multiples = list(report.reports)
    sign = "{:g} ×" if report.by_coordinate else "ε {:g}"
    for multiple in multiples:
        heading = sign.format(report.position(multiple))
        table.add_column(heading, justify="right", no_wrap=True, min_width=8)
    limit = report.plan.cost_limit
    by_key = {(row["attack"], row["multiple"]): row for row in report.rows}
    blocks = {"cost": ("cost_mean", "worst_case_cost"), "return": ("reward_mean", None)}
    for block, (column, worst_case) in blocks.items():
        if block == "return":
            table.add_section()
            table.add_row("[bold]return[/]")
        for attack in report.attacks:
            cells = [_cell(by_key.get((attack, m)), column, limit) for m in multiples]
            table.add_row(attack, *cells)
        table.add_row(_WORST, *(_cell(p, column, limit) for p in report.points))
        if worst_case:
            table.add_row(_WORST_CASE, *(_cell(p, worst_case, limit) for p in report.points))
    return table


def _cell(row: dict[str, Any] | None, column: str, limit: float | None) -> str:
    if row is None:
        return ""
    text = number_cell(row[column])
    if limit is None or "cost" not in column:
        return text
    return f"[{'green' if row[column] <= limit else 'red'}]{text}[/]"


def _title(report: BudgetReport) -> str:
    nominal = report.reports[report.plan.budgets[-1]]
    if report.by_coordinate:
        budgets = f"multiples of ε for each coordinate ({report.plan.epsilon_units})"
    else:
        budgets = f"{len(report.plan.budgets)} budgets ε ({report.plan.epsilon_units})"
    return title_of(nominal, budget=budgets)


def save_budgets(report: BudgetReport, out_dir: str | Path) -> list[Path]:
    """Write evaluation.csv, curve.csv, episodes.csv, evaluation.json, and the figure.

    Each file appears whole or not at all; older ones of the same name are replaced.

    Args:
        report: What to write.
        out_dir: Folder; made if it does not exist.

    Returns:
        The files, in the order above.
    """
    return write_all(
        {
            "evaluation.csv": report.summary().to_csv(index=False).encode(),
            "curve.csv": report.curve().to_csv(index=False).encode(),
            "episodes.csv": report.episodes().to_csv(index=False).encode(),
            "evaluation.json": budget_json(report).encode(),
            **figure_files("evaluation", plot_curves(report)),
        },
        out_dir,
    )


def budget_json(report: BudgetReport) -> str:
    """Everything as JSON: configuration, versions, curve, summary, episodes; unknown is null."""
    safe = report.largest_safe()
    nominal = report.reports[report.plan.budgets[-1]]
    document = {
        **provenance(nominal, report.plan),
        "curve": report.points,
        "area_under_curve": report.area(),
        "mean_cost_over_budgets": report.mean_cost(),
        "largest_safe_multiple": safe,
        "largest_safe_epsilon": None if math.isnan(safe) else report.plan.at(safe).epsilon,
        "gate_failures": report.gate_failures(),
        "remarks": report.remarks(),
        "certificates": [
            {"multiple": m, **one.certificate.to_json()}
            for m, one in report.reports.items()
            if one.certificate is not None
        ],
        "found": [
            {"multiple": m, "attack": name, **one.attacks[name]}
            for m, one in report.reports.items()
            for name in one.searched
        ],
        "summary": report.rows,
        "worst_cases": [
            {
                "multiple": m,
                "epsilon": one.epsilon,
                "worst_attack": one.worst_attack(),
                **one.worst_case(),
            }
            for m, one in report.reports.items()
        ],
        "episodes": report.episodes().to_dict("records"),
    }
    return as_text(document)


def plot_curves(report: BudgetReport) -> Figure:
    """Cost and return against the budget: each attack, the worst with its interval, the limit."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    figure.suptitle(_title(report), fontsize=11)
    left, right = figure.subplots(1, 2)
    draw_cost_curve(left, report.points, limit=report.plan.cost_limit)
    for axes, column in ((left, "cost_mean"), (right, "reward_mean")):
        draw_attacks(axes, report.rows, column)
        axes.set_xlabel("multiple of ε" if report.by_coordinate else "ε")
    left.set_ylabel("mean episode cost")
    right.set_ylabel("mean episode return")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9,
        frameon=False,
    )  # fmt: skip
    return figure


def draw_cost_curve(
    axes: Axes, points: Sequence[Mapping[str, Any]], *, limit: float | None
) -> None:
    """The cost of the worst attack with its interval, and where it is above the limit.

    Args:
        axes: Where to draw.
        points: See `BudgetReport.points`.
        limit: Largest allowed episode cost.
    """
    positions = np.array([_position(point) for point in points])
    costs = np.array([point["cost_mean"] for point in points])
    # Where all episodes cost the same there is no interval.
    low, high = (
        np.array([p["cost_mean"] if math.isnan(p[name]) else p[name] for p in points])
        for name in ("cost_low", "cost_high")
    )
    axes.fill_between(positions, low, high, color=LIMIT_COLOUR, alpha=0.12, linewidth=0)
    axes.plot(positions, costs, color=LIMIT_COLOUR, alpha=0.5, linewidth=4, label=_WORST)
    axes.set_ylim(bottom=min(0.0, float(low.min())))
    if limit is not None:
        axes.axhline(limit, color=LIMIT_COLOUR, linestyle="--", linewidth=1.2, zorder=1)
        above = costs > limit
        axes.scatter(
            positions[above],
            costs[above],
            s=110,
            facecolors="none",
            edgecolors=UNSAFE_COLOUR,
            linewidths=1.8,
            zorder=4,
            label=f"above the limit of {limit:g}",
        )


def draw_attacks(axes: Axes, rows: Sequence[Mapping[str, Any]], column: str) -> None:
    """One thin line an attack, each from where there is no attack.

    Args:
        axes: Where to draw.
        rows: See `BudgetReport.rows`.
        column: Which of their numbers.
    """
    by_key = {(row["attack"], row["multiple"]): row[column] for row in rows}
    positions = {row["multiple"]: _position(row) for row in rows}
    without = by_key[(Natural.name, 0.0)]
    names = [n for n in dict.fromkeys(row["attack"] for row in rows) if n != Natural.name]
    for name, marker in zip(names, _markers(len(names)), strict=True):
        axes.plot(
            list(positions.values()),
            [by_key.get((name, multiple), without) for multiple in positions],
            marker=marker,
            markersize=5,
            linewidth=1,
            label=name,
        )
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _position(row: Mapping[str, Any]) -> float:
    """Where a row stands on the axis of a curve, see `BudgetReport.position`."""
    epsilon = row["epsilon"]
    return float(epsilon if isinstance(epsilon, float) else row["multiple"])


def _markers(count: int) -> list[str]:
    """Shapes that tell lines apart without colour."""
    shapes = "ov^sDPX*<>"
    return [shapes[i % len(shapes)] for i in range(count)]
