"""What was found, one budget or several, on screen, as JSON, and as files."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from safer_offline.evaluation.budgets import BudgetReport
from safer_offline.evaluation.curves import budget_json, budget_screen, save_budgets
from safer_offline.evaluation.rendering import report_json, save_report
from safer_offline.evaluation.results import EvaluationReport
from safer_offline.evaluation.tables import report_table

Found = EvaluationReport | BudgetReport


def on_screen(found: Found) -> RenderableType:
    """Tables, and what must hold and does not."""
    shown = budget_screen(found) if isinstance(found, BudgetReport) else report_table(found)
    failures = [f"GATE FAILED: {failure}." for failure in found.gate_failures()]
    return Group(shown, *(Text(line, style="bold red") for line in failures)) if failures else shown


def as_json(found: Found) -> str:
    """All of it as one document."""
    return budget_json(found) if isinstance(found, BudgetReport) else report_json(found)


def save(found: Found, folder: Path) -> list[Path]:
    """Write tables, documents and figure into a folder; gives the files."""
    if isinstance(found, BudgetReport):
        return save_budgets(found, folder)
    return save_report(found, folder)
