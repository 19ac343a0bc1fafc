"""What an evaluation found, as a table on screen."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from safer_offline.evaluation.results import EvaluationReport

WIDTH = 80

_SCORES = {
    "normalised_reward": "return\n/data",
    "normalised_reward_dsrl": "return\n/DSRL",
    "normalised_cost": "cost\n/limit",
}


def report_table(report: EvaluationReport) -> Table:
    """The report for a terminal: one row an attack, then the worst attack and the worst case.

    In the last row each episode meets the attack that harms it most.
    """
    scores = [score for score in _SCORES if score != "normalised_reward_dsrl" or report.dsrl_range]
    # Without padding: long numbers and all columns must fit into 80 characters.
    table = Table(
        title=title_of(report),
        caption=_caption(report),
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
        caption_justify="left",
    )
    table.add_column("attack", no_wrap=True)
    headings = ["return", "cost", "over\nlimit", *(_SCORES[score] for score in scores)]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)

    def add(name: str, row: Mapping[str, Any]) -> None:
        numbers = [number_cell(row[score], digits=2) for score in scores]
        table.add_row(name, *_cells(row, report.cost_limit), *numbers)

    summary = {str(row["attack"]): row for row in report.rows()}
    for name, row in summary.items():
        add(name, row)
    if len(summary) > 1:
        table.add_section()
        worst = report.worst_attack()
        add(f"worst: {worst}", summary[worst])
        add("worst per episode", report.worst_case())
    return table


def _caption(report: EvaluationReport) -> str:
    lines = ["± is the standard deviation over episodes"]
    if report.cost_limit is not None:
        lines[0] += ", ≤ the exact bound at 95 % confidence"
    if report.reward_range:
        lines.append("return/data: 0 and 1 are the extreme returns in the policy's dataset")
    if report.dsrl_range:
        lines.append("return/DSRL: those in DSRL's dataset of this task, as others report")
    if report.critics:
        sources = ", ".join(f"@{name}" for name in report.critics)
        lines.append(
            f"{sources}: led by critics that were fitted to these, not by the policy's own"
        )
    if report.differences:
        lines.append(report.differences)
    lines += report.remarks()
    if certified := report.certified():
        # A line apart, so that what is measured and what is certain are not taken for each other.
        lines += ["", *certified]
    return "\n".join(lines)


def print_as_text(table: Table) -> str:
    """A table as plain text, as wide as it must be."""
    stream = io.StringIO()
    Console(file=stream, width=WIDTH + 20, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def title_of(report: EvaluationReport, *, budget: str | None = None) -> str:
    """Which environment, how many episodes, what budget (or what is said of it) and limit."""
    count = report.episodes["episode"].nunique()
    parts = [f"{report.env_id}: {count} episode{'' if count == 1 else 's'}"]
    if budget is not None:
        parts.append(budget)
    elif isinstance(report.epsilon, float):
        parts.append(f"ε = {report.epsilon:g} ({report.epsilon_units})")
    else:
        parts.append(f"ε for each coordinate ({report.epsilon_units})")
    if report.cost_limit is not None:
        parts.append(f"cost limit {report.cost_limit:g}")
    return ", ".join(parts)


def _cells(row: Mapping[Any, Any], cost_limit: float | None) -> list[str]:
    """What follows the name in a table row; the colour of the cost says whether it is safe."""
    cost = number_cell(row["cost_mean"], row["cost_std"])
    if cost_limit is not None:
        cost = f"[{'green' if row['cost_mean'] <= cost_limit else 'red'}]{cost}[/]"
    return [
        number_cell(row["reward_mean"], row["reward_std"]),
        cost,
        format_violations(row["violation_rate"], row["violation_high"]),
    ]


def format_violations(rate: float | None, at_most: float | None) -> str:
    """Such as "0% ≤5.8%", what was seen and what that leaves possible, in ten characters.

    Args:
        rate: Share of the episodes; None or NaN if there is no limit.
        at_most: Its upper bound; None or NaN if it is not known.
    """
    if rate is None or math.isnan(rate):
        return "–"
    seen = f"{rate:.1%}" if 0 < rate < 0.01 else f"{rate:.0%}"
    if at_most is None or math.isnan(at_most):
        return seen
    return f"{seen} ≤{at_most:.1%}" if at_most < 0.1 else f"{seen} ≤{at_most:.0%}"


def number_cell(value: float, deviation: float | None = None, *, digits: int = 1) -> str:
    """Such as "1.5 ± 0.3"; a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"
