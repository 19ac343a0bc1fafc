"""What models of the data foresaw of the policy, beside what the simulator then showed."""

from __future__ import annotations

import math
from typing import Any

from safer_offline.evaluation.report.documents import (
    EvaluationFiles,
    RunFiles,
    as_mapping,
    as_number,
    as_rows,
)
from safer_offline.evaluation.report.markup import Html, join, tag
from safer_offline.evaluation.report.prose import bullets, paragraph
from safer_offline.evaluation.report.sentences import strongest_first
from safer_offline.evaluation.report.tables import Cell, table

HEADINGS = (
    "attack",
    "return foreseen",
    "return simulated",
    "cost foreseen",
    "cost simulated",
    "trusted",
)
LEGEND = (
    "Foreseen: mean, and the range of the models, which were learned from the dataset; no "
    "simulator took part. Simulated: mean of the first evaluation above, where it met this attack "
    "with this budget. Not trusted: the policy leads where the data say little."
)
UNKNOWN = "–"


def foresight_section(run: RunFiles) -> Html | None:
    """A table of the estimates and, where settings were chosen by them, what was tried."""
    estimates = as_rows(run.foresight.get("estimates"))
    if not estimates:
        return None
    evaluation = next(iter(strongest_first(run)), None)
    simulated = {} if evaluation is None else _simulated(run, evaluation)
    rows = [_row(one, simulated.get(str(one.get("attack")), {})) for one in estimates]
    caption = "What was foreseen without a simulator, and what came"
    return join(
        tag("h3", "Foreseen from the data"),
        table(HEADINGS, rows, caption=caption, legend=LEGEND, kind=""),
        *_choice(run.choice),
    )


def _simulated(run: RunFiles, evaluation: EvaluationFiles) -> dict[str, dict[str, Any]]:
    """Rows of the evaluation by attack; none if it is one of another policy or budget."""
    if run.fingerprint not in ("", evaluation.config.get("policy_sha256")):
        return {}
    same = all(
        evaluation.config.get(name) == run.foresight.get(name)
        for name in ("epsilon", "epsilon_units")
    )
    rows = evaluation.at(evaluation.nominal) if evaluation.nominal == 1 else []
    return {row["attack"]: row for row in rows if same or row["multiple"] == 0}


def _row(estimate: dict[str, Any], simulated: dict[str, Any]) -> list[Cell]:
    cells = [Cell(text=str(estimate.get("attack", UNKNOWN)))]
    for name in ("reward", "cost"):
        cells += [
            _foreseen(estimate, name),
            _number(as_number(simulated.get(f"{name}_mean"))),
        ]
    trusted = estimate.get("trusted")
    words = ("yes" if trusted else "no") if isinstance(trusted, bool) else UNKNOWN
    return [*cells, Cell(text=words)]


def _foreseen(estimate: dict[str, Any], name: str) -> Cell:
    value, interval = as_number(estimate.get(name)), estimate.get(f"{name}_interval")
    ends = [as_number(one) for one in interval] if isinstance(interval, list) else []
    known = len(ends) == 2 and not any(math.isnan(end) for end in (value, *ends))
    text = f"{value:.1f} ({ends[0]:.1f} to {ends[1]:.1f})" if known else _number(value).text
    return Cell(text=text, value=value)


def _number(value: float) -> Cell:
    return Cell(text=UNKNOWN if math.isnan(value) else f"{value:.1f}", value=value)


def _choice(document: dict[str, Any]) -> list[Html | None]:
    """Which settings were tried, and why one was kept."""
    tried = as_rows(document.get("alternatives"))
    if not tried:
        return []
    words = []
    for one in tried:
        settings = as_mapping(one.get("settings"))
        name = " ".join(f"{key}={value}" for key, value in settings.items()) or "as given"
        costs = [as_number(each.get("cost")) for each in as_rows(one.get("estimates"))]
        worst = max((cost for cost in costs if not math.isnan(cost)), default=math.nan)
        words.append(f"{name}: worst cost foreseen {_number(worst).text}")
    reason = f"Chosen: {document.get('chosen', UNKNOWN)}. {document.get('reason', '')}"
    return [paragraph("Settings that were tried, and foreseen:"), bullets(words), paragraph(reason)]
