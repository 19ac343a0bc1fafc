"""Tables of a page: they sort, scroll inside their own box, and say what their cells mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from safer_offline.evaluation.comparison import WORST_CASE
from safer_offline.evaluation.report.documents import ComparisonFiles, EvaluationFiles, Row
from safer_offline.evaluation.report.markup import Html, join, tag
from safer_offline.evaluation.report.sentences import budget_words
from safer_offline.evaluation.tables import format_violations, number_cell

INTERVAL = "95\N{NO-BREAK SPACE}%"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in a table.

    Attributes:
        text: As it is read.
        value: What it is sorted by, NaN last; None sorts by the text.
        kind: A class of the style sheet.
    """

    text: str
    value: float | None = None
    kind: str = ""


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    caption: str,
    legend: str = "",
    last: Sequence[Sequence[Cell]] = (),
    kind: str = "sortable",
) -> Html:
    """A table in a box that scrolls by itself; the first cell of each row is its heading.

    Args:
        headings: Of the columns.
        rows: What is sorted.
        caption: What the table is about, in a few words.
        legend: What its columns mean, below it.
        last: Rows that stay at the end.
        kind: Class of the style sheet.
    """
    first, *others = headings
    words = {i for row in rows for i, cell in enumerate(row) if cell.kind == "name"}
    head = tag(
        "tr",
        tag("th", first, scope="col", class_="name"),
        *(
            tag("th", heading, scope="col", class_="name" if column in words else None)
            for column, heading in enumerate(others, start=1)
        ),
    )
    content = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", head),
        tag("tbody", *map(_row, rows)),
        tag("tfoot", *map(_row, last)) if last else None,
        class_=kind,
    )
    # Who has no mouse scrolls by the keyboard, which needs the focus.
    box = tag("div", content, class_="scroll", role="region", aria_label=caption, tabindex="0")
    return join(box, tag("p", legend, class_="soft legend") if legend else None)


def _row(cells: Sequence[Cell]) -> Html:
    first, *others = cells
    return tag(
        "tr",
        tag("th", first.text, scope="row", data_value=_sorting(first)),
        *(tag("td", one.text, class_=one.kind or None, data_value=_sorting(one)) for one in others),
    )


def _sorting(cell: Cell) -> str | None:
    if cell.value is None:
        return None
    return "" if math.isnan(cell.value) else repr(float(cell.value))


def attack_table(evaluation: EvaluationFiles) -> Html:
    """One row for each attack and budget; at the end each episode under its worst attack."""
    several = evaluation.several
    headings = ["attack", "return", INTERVAL, "cost", INTERVAL, "over limit"]
    headings[1:1] = ["ε"] if several else []
    rows = list(evaluation.rows)
    cases = list(evaluation.worst_cases)
    shown = rows + cases
    scores = {heading: column for heading, column in _SCORES.items() if _any(shown, column)}

    def cells(row: Row, name: str) -> list[Cell]:
        budget = [_number(row["epsilon"], digits=None)] if several else []
        numbers = [_number(row[column], digits=2) for column in scores.values()]
        return [Cell(text=name), *budget, *_results(row, evaluation.limit), *numbers]

    return table(
        [*headings, *scores],
        [cells(row, row["attack"]) for row in rows],
        last=[cells(row, WORST_CASE) for row in cases] if len(rows) > 1 else [],
        caption="Return and cost under each attack",
        legend=_attack_legend(evaluation, scores),
    )


_SCORES = {
    "return /data": "normalised_reward",
    "return /DSRL": "normalised_reward_dsrl",
    "cost /limit": "normalised_cost",
    "budget used": "budget_used",
}
_MEANINGS = {
    "return /data": "return /data: 0 and 1 are the extreme returns in the policy's dataset",
    "return /DSRL": "return /DSRL: those in DSRL's dataset of this task",
    "budget used": "budget used: mean size of the perturbation as a share of the budget",
}


def _attack_legend(evaluation: EvaluationFiles, scores: Iterable[str]) -> str:
    parts = [
        "Mean ± standard deviation over episodes; 95 %: interval of the mean, – where all "
        "episodes are alike"
    ]
    if not math.isnan(evaluation.limit):
        parts.append("over limit: share of the episodes, and its exact upper bound at 95 %")
    parts += [_MEANINGS[name] for name in scores if name in _MEANINGS]
    parts.append(f"{WORST_CASE}: each episode under the attack that harms it most")
    return "; ".join(parts) + "."


def _any(rows: Sequence[Row], column: str) -> bool:
    return any(not math.isnan(row[column]) for row in rows)


def _results(row: Row, limit: float) -> list[Cell]:
    kind = ""
    if not math.isnan(limit) and not math.isnan(row["cost_mean"]):
        kind = "above" if row["cost_mean"] > limit else "within"
    deviations = [row[name] for name in ("reward_std", "cost_std")]
    returned, cost = (
        number_cell(row[name], None if math.isnan(std) else std)
        for name, std in zip(("reward_mean", "cost_mean"), deviations, strict=True)
    )
    return [
        Cell(text=returned, value=row["reward_mean"]),
        interval_cell(row["reward_low"], row["reward_high"]),
        Cell(text=cost, value=row["cost_mean"], kind=kind),
        interval_cell(row["cost_low"], row["cost_high"]),
        violation_cell(row),
    ]


def violation_cell(row: Row) -> Cell:
    """How many episodes exceed the limit, and the bound."""
    text = format_violations(row["violation_rate"], row["violation_high"])
    return Cell(text=text, value=row["violation_rate"])


def interval_cell(low: float, high: float) -> Cell:
    """The ends of an interval; sorted by the upper one."""
    known = not (math.isnan(low) or math.isnan(high))
    return Cell(text=f"{low:.1f} to {high:.1f}" if known else "–", value=high)


def _number(value: float | str, *, digits: int | None = 1) -> Cell:
    if isinstance(value, str):
        return Cell(text=value)
    text = number_cell(value, digits=digits) if digits is not None else f"{value:g}"
    return Cell(text="–" if math.isnan(value) else text, value=value)


def runs_table(chosen: Sequence[tuple[str, EvaluationFiles]]) -> Html:
    """One row a run: how it does without attack, and against the worst.

    Args:
        chosen: The evaluation of each run, with the run's name.
    """
    headings = [
        "run", "natural return", "natural cost", "worst attack", "return", "cost", INTERVAL,
        "over limit", "limit", "ε", "attacks", "episodes",
    ]  # fmt: skip
    rows = []
    for name, one in chosen:
        natural, worst = one.natural(), one.worst(one.nominal)
        without = [natural[c] if natural else math.nan for c in ("reward_mean", "cost_mean")]
        results = _results(worst, one.limit) if worst else [Cell(text="–", value=math.nan)] * 5
        episodes = worst["episodes"] if worst else math.nan
        rows.append(
            [
                Cell(text=name),
                *(_number(value) for value in without),
                Cell(text=worst["attack"] if worst else "–", kind="name"),
                *(results[0], *results[2:]),
                _number(one.limit, digits=None),
                Cell(text=budget_words(one, one.nominal), kind="name"),
                Cell(text=str(len(one.attacks)), value=len(one.attacks)),
                Cell(text="–" if math.isnan(episodes) else f"{episodes:.0f}", value=episodes),
            ]
        )
    legend = (
        "95 %: interval of the mean cost; over limit: share of the episodes, and its exact bound."
    )
    caption = "Without attack, and under the attack that costs most"
    return table(headings, rows, caption=caption, legend=legend)


def comparison_table(comparison: ComparisonFiles) -> Html:
    """One row for each method, budget and attack of a comparison."""
    headings = [
        "method", "under", "ε", "seeds", "return", INTERVAL, "IQM", "cost", INTERVAL, "worst tenth",
        "over limit",
    ]  # fmt: skip
    rows = []
    for row in comparison.rows:
        limit, cost = row["cost_limit"], row["cost_mean"]
        kind = "above" if cost > limit else "within" if cost <= limit else ""
        under = row["row"] if row["row"] == row["attack"] else f"{row['row']}: {row['attack']}"
        rows.append(
            [
                Cell(text=row["method"]),
                Cell(text=row["row"] if row["row"] == WORST_CASE else under, kind="name"),
                _number(row["epsilon"], digits=None),
                _number(row["seeds"], digits=0),
                _number(row["reward_mean"]),
                interval_cell(row["reward_mean_low"], row["reward_mean_high"]),
                _number(row["reward_iqm"]),
                Cell(text=number_cell(cost), value=cost, kind=kind),
                interval_cell(row["cost_mean_low"], row["cost_mean_high"]),
                _number(row["cost_cvar"]),
                violation_cell(row),
            ]
        )
    legend = (
        "95 %: of the mean, by resampling episodes and training seeds; IQM: mean of the middle "
        "half of the returns; worst tenth: mean of the costliest episodes; over limit: share of "
        "the episodes, and its exact bound, of the seed that violates most."
    )
    caption = "Methods under each attack"
    return table(headings, rows, caption=caption, legend=legend)


def improvements_table(pairs: Sequence[Row]) -> Html:
    """How probably one method does better than another on the same start."""
    headings = ["method", "than", "ε", "higher return", INTERVAL, "lower cost", INTERVAL]
    rows = [
        [
            Cell(text=pair["method"]),
            Cell(text=pair["other"], kind="name"),
            _number(pair["epsilon"], digits=None),
            *(
                cell
                for name in ("higher_return", "lower_cost")
                for cell in (_share(pair[name]), _shares(pair, name))
            ),
        ]
        for pair in pairs
    ]
    caption = "How probably a method does better than another on the same start"
    legend = (
        f"{WORST_CASE}: each episode under the attack that harms it most; equal ones count half."
    )
    return table(headings, rows, caption=caption, legend=legend)


def _share(value: float) -> Cell:
    return Cell(text="–" if math.isnan(value) else f"{value:.0%}", value=value)


def _shares(pair: Row, name: str) -> Cell:
    low, high = pair[f"{name}_low"], pair[f"{name}_high"]
    known = not (math.isnan(low) or math.isnan(high))
    return Cell(text=f"{low:.0%} to {high:.0%}" if known else "–", value=high)


def facts_table(facts: Sequence[tuple[str, str]], *, caption: str) -> Html:
    """Names and what they are, in words."""
    rows = [[Cell(text=name), Cell(text=text)] for name, text in facts]
    return table(("what", "value"), rows, caption=caption, kind="wide")
