"""The section of one evaluation: table, figures, what was tried, how to do it again."""

from __future__ import annotations

import base64
import json
import math

from safer_offline.evaluation.report.documents import EvaluationFiles, RunFiles
from safer_offline.evaluation.report.figures import (
    captioned,
    draw_budgets,
    draw_learning,
    draw_strips,
)
from safer_offline.evaluation.report.markup import Html, join, tag
from safer_offline.evaluation.report.prose import alarm, bullets, command, folded, paragraph
from safer_offline.evaluation.report.reproduction import evaluation_command
from safer_offline.evaluation.report.sentences import (
    STATUS_WORDS,
    budget_words,
    how_far,
    of_another_policy,
    tried_and_not,
    verdict_of,
)
from safer_offline.evaluation.report.tables import attack_table, facts_table

_LONGEST_CERTIFICATE = 4_000


def evaluation_section(run: RunFiles, one: EvaluationFiles, *, opened: bool) -> Html:
    """An evaluation, folded unless it is the one to read first.

    Args:
        run: Whose.
        one: Which.
        opened: Whether it is unfolded.
    """
    verdict = verdict_of(one)
    return folded(
        tag("h4", f"{title_of(one)}: {STATUS_WORDS[verdict.status]}"),
        None if opened else paragraph(verdict.finding, verdict.reach),
        bullets(
            text for text in (how_far(one), of_another_policy(run, one), one.differences) if text
        ),
        alarm("These numbers cannot be trusted:", one.gate_failures),
        bullets(one.notes),
        attack_table(one) if one.rows else None,
        _budgets(one),
        _strips(one),
        _paths(one),
        _learning(one),
        tag("h5", "Remarks") if one.remarks else None,
        bullets(one.remarks),
        _certificate(one),
        tag("h5", "What was and what was not tried"),
        bullets(tried_and_not(one)),
        _reproduction(run, one),
        opened=opened,
    )


def title_of(one: EvaluationFiles) -> str:
    """Such as "SafetyCarCircle-v0, ε = 0.05 (raw), 50 episodes, seed 0, cost limit 10"."""
    parts = [episodes_words(one)]
    if not math.isnan(one.limit):
        parts.append(f"cost limit {one.limit:g}")
    return ", ".join(parts)


def episodes_words(one: EvaluationFiles) -> str:
    """The same without the limit, which is not that of the episodes but of who judges them."""
    episodes = max((row["episodes"] for row in one.rows if row["episodes"] > 0), default=math.nan)
    parts = [str(one.config.get("env") or "an unknown environment")]
    if one.several:
        parts.append(f"{len(one.budgets)} budgets")
    else:
        parts.append(budget_words(one, one.nominal))
    if not math.isnan(episodes):
        parts.append(f"{episodes:.0f} episode{'' if episodes == 1 else 's'}")
    parts.append(f"seed {one.config.get('seed', 'unknown')}")
    return ", ".join(parts)


def _strips(one: EvaluationFiles) -> Html | None:
    """Episodes under each attack, at the budget that stands for all."""
    known = one.samples.get(0.0, {}) | one.samples.get(one.nominal, {})
    names = [row["attack"] for row in one.at(one.nominal)]
    samples = {name: known[name] for name in dict.fromkeys(names) if name in known}
    if not samples:
        return None
    budget = budget_words(one, one.nominal)
    drawings = draw_strips(samples, limit=one.limit, title=f"{one.folder} {budget}")
    unsafe = "" if math.isnan(one.limit) else "; orange squares: mean cost above the limit"
    return captioned(
        f"Return and cost under each attack, {budget}. Dots: episodes; bars: mean ± standard "
        f"deviation{unsafe}.",
        *drawings,
    )


def _budgets(one: EvaluationFiles) -> Html | None:
    """Cost and return against the budget, where there are several."""
    natural = one.natural()
    whole = all(not math.isnan(p["cost_mean"]) for p in one.points)
    if not one.several:
        return None
    if not one.points or natural is None or natural["multiple"] != 0 or not whole:
        return paragraph("Its curve of cost against budget is missing or damaged.")
    caption = (
        "Cost and return against the budget. Wide grey line: the worst attack at each budget, with "
        "the 95 % interval of its mean; orange rings: above the limit."
    )
    return captioned(caption, *draw_budgets(one, title=str(one.folder)))


def _paths(one: EvaluationFiles) -> Html | None:
    if not one.paths:
        return None
    # As an image: whatever is in the file, no script of it runs and none of its names collide.
    content = base64.b64encode(one.paths).decode()
    image = tag(
        "img",
        src=f"data:image/svg+xml;base64,{content}",
        alt="Paths of the episodes, as the evaluation drew them.",
        class_="paths",
    )
    return tag("figure", image, tag("figcaption", "Trajectories (paths.svg)."))


def _learning(one: EvaluationFiles) -> Html | None:
    drawings = [
        draw_learning(
            curves,
            limit=one.limit,
            title=f"{one.folder}: cost by steps of the adversary's training {budget}".strip(),
        )
        for budget, curves in one.learning.items()
    ]
    if not drawings:
        return None
    budgets = ", ".join(filter(None, one.learning))
    return captioned(
        "What the adversary that learned caused while it learned, in episodes other than those "
        f"above{f' ({budgets})' if budgets else ''}. Where the curve still rises at its end, a "
        "longer training would find more.",
        *drawings,
    )


def _certificate(one: EvaluationFiles) -> Html | None:
    """Whatever stands there, as it stands there."""
    if one.certificate is None:
        return None
    text = json.dumps(one.certificate, indent=2, ensure_ascii=False, default=str)
    cut = text if len(text) <= _LONGEST_CERTIFICATE else f"{text[:_LONGEST_CERTIFICATE]}\n…"
    return join(tag("h5", "Certificate"), command(cut))


def _reproduction(run: RunFiles, one: EvaluationFiles) -> Html:
    text, notes = evaluation_command(run, one)
    facts = [
        ("policy (SHA-256)", str(one.config.get("policy_sha256") or "unknown")),
        ("seed of episodes and attacks", str(one.config.get("seed", "unknown"))),
        ("versions", ", ".join(f"{n} {v}" for n, v in one.versions.items()) or "unknown"),
        ("files", str(one.folder)),
    ]
    return join(
        tag("h5", "How to reproduce it"),
        command(text),
        bullets(notes),
        facts_table(facts, caption="What the numbers depend on"),
    )
