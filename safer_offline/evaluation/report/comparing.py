"""Several runs beside each other: what they have in common, and comparisons that were made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from safer_offline.evaluation.comparison import WORST_CASE
from safer_offline.evaluation.report.documents import (
    ComparisonFiles,
    EvaluationFiles,
    Row,
    RunFiles,
)
from safer_offline.evaluation.report.evaluations import episodes_words
from safer_offline.evaluation.report.figures import Interval, captioned, draw_intervals
from safer_offline.evaluation.report.markup import Html, join, tag
from safer_offline.evaluation.report.prose import alarm, bullets, paragraph
from safer_offline.evaluation.report.sentences import strongest_first
from safer_offline.evaluation.report.tables import (
    comparison_table,
    improvements_table,
    runs_table,
)
from safer_offline.evaluation.trainings import short_names


def compared(runs: Sequence[RunFiles]) -> Html | None:
    """Runs in one table and figure, by an evaluation that all of them met if there is one."""
    names = short_names([str(run.path) for run in runs])
    judged = [(names[str(run.path)], run) for run in runs if run.evaluations]
    if len(judged) < 2:
        return None
    common = _common([run for _, run in judged])
    if common:
        what = episodes_words(common[0])
        sentence = f"All of them met the same evaluation, with the same episodes: {what}."
        chosen = common
    else:
        sentence = (
            "They were not evaluated alike, so the numbers below are not of the same episodes, "
            "attacks or budgets: each run is shown by its strongest evaluation. To compare them, "
            "evaluate them together: `safer-offline evaluate RUN RUN ...`"
        )
        chosen = [strongest_first(run)[0] for _, run in judged]
    pairs = [(name, one) for (name, _), one in zip(judged, chosen, strict=True)]
    return join(
        tag("h2", "The runs beside each other", id="compared"),
        paragraph(sentence),
        runs_table(pairs),
        _figure(pairs),
    )


def _common(runs: Sequence[RunFiles]) -> list[EvaluationFiles]:
    """For each run its evaluation of one kind that all have; the strongest kind of the first."""
    by_key = [{_kind(one): one for one in reversed(strongest_first(run))} for run in runs]
    for one in strongest_first(runs[0]):
        if one.config and all(_kind(one) in kinds for kinds in by_key):
            return [kinds[_kind(one)] for kinds in by_key]
    return []


def _kind(one: EvaluationFiles) -> str:
    """Equal where episodes, budget and attacks are the same."""
    told = ("env", "epsilon", "epsilon_units", "episodes", "seed", "budgets", "attacks")
    return json.dumps({name: one.config.get(name) for name in told}, sort_keys=True)


def _figure(pairs: Sequence[tuple[str, EvaluationFiles]]) -> Html | None:
    found = [(name, row) for name, one in pairs if (row := one.worst(one.nominal))]
    caption = (
        "Mean return and cost under the attack that costs most, with 95 % intervals; orange: above "
        "the limit."
    )
    limits = {one.limit for _, one in pairs}
    return _intervals(found, "", limits, caption=caption, title="The runs, worst attack")


def _intervals(
    found: Sequence[tuple[str, Row]], end: str, limits: set[float], *, caption: str, title: str
) -> Html | None:
    """Means of return and cost with their intervals: two drawings, or nothing of nothing.

    Args:
        found: Names, and rows of results.
        end: What the names of columns of intervals have before low and high.
        limits: Those that there are; of several, none is that of all.
        caption: Below the drawings.
        title: What they show.
    """
    known = {limit for limit in limits if not math.isnan(limit)}
    drawings = []
    for what, column in (("return", "reward"), ("cost", "cost")):
        rows = [
            Interval(
                name, row[f"{column}_mean"], row[f"{column}{end}_low"], row[f"{column}{end}_high"]
            )
            for name, row in found
            if not math.isnan(row[f"{column}_mean"])
        ]
        limit = next(iter(known)) if what == "cost" and len(known) == 1 else math.nan
        if rows:
            label = f"mean {what}"
            drawings.append(
                draw_intervals(rows, limit=limit, label=label, title=f"{title}: {what}")
            )
    return captioned(caption, *drawings) if drawings else None


def comparisons(found: Sequence[ComparisonFiles]) -> Html | None:
    """The comparisons that `evaluate` made of several runs."""
    if not found:
        return None
    return join(tag("h2", "Comparisons", id="comparisons"), *(_comparison(one) for one in found))


def _comparison(one: ComparisonFiles) -> Html:
    worst = [row for row in one.rows if row["row"] == WORST_CASE]
    last = max((row["multiple"] for row in worst if row["multiple"] >= 0), default=math.nan)
    found = [(row["method"], row) for row in worst if row["multiple"] == last]
    caption = "Each episode under the attack that harms it most: means with 95 % intervals."
    limits = {row["cost_limit"] for row in worst}
    return join(
        tag("h3", f"{', '.join(one.config) or 'Unknown runs'}"),
        alarm("These numbers cannot be trusted:", one.gate_failures),
        bullets(one.unequal_attacks),
        comparison_table(one) if one.rows else paragraph("Its table is missing or damaged."),
        _intervals(found, "_mean", limits, caption=caption, title=str(one.folder)),
        improvements_table(one.pairs) if one.pairs else None,
        paragraph(f"Files: {one.folder}.", kind="soft"),
    )
