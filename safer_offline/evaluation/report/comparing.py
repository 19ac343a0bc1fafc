"""Several runs beside each other: what they have in common, and comparisons that were made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from safer_offline.evaluation.comparison import WORST_CASE
from safer_offline.evaluation.report.documents import ComparisonFiles, EvaluationFiles, RunFiles
from safer_offline.evaluation.report.evaluations import episodes_words
from safer_offline.evaluation.report.figures import captioned, draw_intervals
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
    rows: dict[str, list[tuple[str, float, float, float]]] = {"return": [], "cost": []}
    for name, one in pairs:
        worst = one.worst(one.nominal)
        if worst is None or math.isnan(worst["reward_mean"]):
            continue
        for what, column in (("return", "reward"), ("cost", "cost")):
            ends = worst[f"{column}_low"], worst[f"{column}_high"]
            rows[what].append((name, worst[f"{column}_mean"], *ends))
    if not rows["cost"]:
        return None
    return captioned(
        "Mean return and cost under the attack that costs most, with 95 % intervals; orange: above "
        "the limit.",
        *_drawings(rows, {one.limit for _, one in pairs}, "The runs, worst attack"),
    )


def _drawings(
    rows: dict[str, list[tuple[str, float, float, float]]], limits: set[float], title: str
) -> list[Html]:
    known = {limit for limit in limits if not math.isnan(limit)}
    return [
        draw_intervals(
            several,
            # Of several limits none is that of all.
            limit=next(iter(known)) if what == "cost" and len(known) == 1 else math.nan,
            label=f"mean {what}",
            title=f"{title}: {what}",
        )
        for what, several in rows.items()
    ]


def comparisons(found: Sequence[ComparisonFiles]) -> Html | None:
    """The comparisons that `evaluate` made of several runs."""
    if not found:
        return None
    return join(tag("h2", "Comparisons", id="comparisons"), *(_comparison(one) for one in found))


def _comparison(one: ComparisonFiles) -> Html:
    rows: dict[str, list[tuple[str, float, float, float]]] = {"return": [], "cost": []}
    worst = [row for row in one.rows if row["row"] == WORST_CASE]
    last = max((row["multiple"] for row in worst), default=math.nan)
    for row in worst:
        if row["multiple"] == last and not math.isnan(row["cost_mean"] + row["reward_mean"]):
            for what, column in (("return", "reward_mean"), ("cost", "cost_mean")):
                ends = row[f"{column}_low"], row[f"{column}_high"]
                rows[what].append((row["method"], row[column], *ends))
    drawings = _drawings(rows, {r["cost_limit"] for r in worst}, str(one.folder))
    return join(
        tag("h3", f"{', '.join(one.config) or 'Unknown runs'}"),
        alarm("These numbers cannot be trusted:", one.gate_failures),
        bullets(one.unequal_attacks),
        comparison_table(one) if one.rows else paragraph("Its table is missing or damaged."),
        captioned(
            "Each episode under the attack that harms it most: means with 95 % intervals.",
            *drawings,
        )
        if rows["cost"]
        else None,
        improvements_table(one.pairs) if one.pairs else None,
        paragraph(f"Files: {one.folder}.", kind="soft"),
    )
