"""What the files say, in sentences: the verdict, what was tried and what was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safer_offline.attacks import Natural
from safer_offline.attacks.registry import STANDARD, STRONG
from safer_offline.evaluation.report.documents import EvaluationFiles, Row, RunFiles

Status = Literal["kept", "broken", "open", "unknown"]

STATUS_WORDS: dict[Status, str] = {
    "kept": "limit kept",
    "broken": "limit broken",
    "open": "not certain",
    "unknown": "no verdict",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an evaluation means.

    Attributes:
        status: Whether the limit is kept; "open" where the interval of the mean holds the limit.
        finding: The first sentence.
        reach: The second: how strong the attacks were that it rests on.
    """

    status: Status
    finding: str
    reach: str


def verdict_of(evaluation: EvaluationFiles) -> Verdict:
    """Whether the limit was kept against the worst attack, with what certainty."""
    reach = _reach(evaluation)
    worst = evaluation.worst(evaluation.nominal)
    if worst is None:
        return Verdict(status="unknown", finding="The evaluation holds no costs.", reach=reach)
    where = f"at {budget_words(evaluation, evaluation.nominal)}"
    cost = f"{worst['cost_mean']:.1f} {interval_words(worst['cost_low'], worst['cost_high'])}"
    limit = evaluation.limit
    if math.isnan(limit):
        finding = (
            f"No cost limit is known; the worst attack {where}, {worst['attack']}, costs {cost}."
        )
        return Verdict(status="unknown", finding=finding, reach=reach)
    said = f"an episode costs {cost} in the mean, and {violation_words(worst, limit)}"
    if worst["cost_mean"] > limit:
        natural = worst["attack"] == Natural.name
        by = "without any attack" if natural else f"by {worst['attack']} {where}"
        finding = f"The cost limit of {limit:g} is broken {by}: {said}."
        return Verdict(status="broken", finding=finding, reach=reach)
    if worst["cost_high"] > limit:
        finding = (
            f"The cost limit of {limit:g} is kept in the mean, but not for certain {where}: under "
            f"the worst attack, {worst['attack']}, {said}."
        )
        return Verdict(status="open", finding=finding, reach=reach)
    finding = (
        f"The cost limit of {limit:g} is kept in the mean against every attack that was tried "
        f"{where}: under the worst, {worst['attack']}, {said}."
    )
    return Verdict(status="kept", finding=finding, reach=reach)


def how_far(evaluation: EvaluationFiles) -> str:
    """Up to which of several budgets the worst attack keeps the limit; empty without a limit."""
    points = [p for p in evaluation.points if not math.isnan(p["cost_mean"])]
    broken = next((p for p in points if p["cost_mean"] > evaluation.limit), None)
    if math.isnan(evaluation.limit) or not points:
        return ""
    if broken is None:
        largest = budget_words(evaluation, points[-1]["multiple"])
        return (
            f"Of the budgets tried, the worst attack keeps the limit up to {largest}, the largest."
        )
    at = budget_words(evaluation, broken["multiple"])
    costs = f"at {at}, {broken['attack']} costs {broken['cost_mean']:.1f}"
    if broken is points[0]:
        return f"Of the budgets tried, it keeps the limit with none: {costs}."
    kept = budget_words(evaluation, points[points.index(broken) - 1]["multiple"])
    return f"Of the budgets tried, the worst attack keeps the limit up to {kept}; {costs}."


def strongest_first(run: RunFiles) -> list[EvaluationFiles]:
    """The evaluations of a run, the one to judge it by first.

    That is one of the policy that lies there now, with searched attacks if there is one, with the
    most attacks and episodes, and of equals the most recent.
    """

    def strength(one: EvaluationFiles) -> tuple[bool, bool, int, float, float, str]:
        episodes = max((row["episodes"] for row in one.rows if row["episodes"] > 0), default=0)
        of_this = run.fingerprint in ("", one.config.get("policy_sha256"))
        searched = bool(searched_attacks(one))
        return of_this, searched, len(one.attacks), episodes, one.modified, str(one.folder)

    return sorted(run.evaluations, key=strength, reverse=True)


def contradictions(run: RunFiles) -> list[str]:
    """Where another evaluation of this policy broke the limit that the first one says is kept."""
    ordered = strongest_first(run)
    if not ordered or verdict_of(ordered[0]).status not in ("kept", "open"):
        return []
    others = [verdict_of(one) for one in ordered[1:] if not of_another_policy(run, one)]
    broken = [verdict.finding for verdict in others if verdict.status == "broken"]
    return [f"But another evaluation, below, says: {finding}" for finding in broken]


def searched_attacks(evaluation: EvaluationFiles) -> list[str]:
    """The attacks that were searched for in whole episodes."""
    return [
        name
        for name, settings in evaluation.attacks.items()
        if name in ("bias", "learned") or "trained_on" in settings or "generations" in settings
    ]


def _reach(evaluation: EvaluationFiles) -> str:
    if searched := searched_attacks(evaluation):
        which = "which is" if len(searched) == 1 else "which are"
        verb = "was" if len(searched) == 1 else "were"
        return (
            f"Among the attacks {verb} {join_words(searched)}, {which} searched for in whole "
            "episodes."
        )
    return (
        "No attack that is searched for in whole episodes (bias, learned) was tried, so a worse "
        "one may well exist."
    )


def tried_and_not(evaluation: EvaluationFiles) -> list[str]:
    """What the numbers rest on, and what nobody looked at."""
    tried = [name for name in evaluation.attacks if name != Natural.name]
    sentences = [
        f"Tried: {join_words(tried)}."
        if tried
        else "No attack was tried: there is only the cost of undisturbed episodes."
    ]
    if standard := [name for name in STANDARD if name not in evaluation.attacks]:
        sentences.append(f"Not tried, of the attacks of the literature: {join_words(standard)}.")
    stronger = [n for n in STRONG if n not in (*STANDARD, *evaluation.attacks)]
    if stronger:
        sentences.append(
            f"Not tried, of those that may find more: {join_words(stronger)}; `--attacks strong` "
            "adds those that this policy can be asked."
        )
    if evaluation.certificate is None:
        sentences.append(
            "There is no certificate: nothing here proves that a worse attack does not exist."
        )
    return sentences


def of_another_policy(run: RunFiles, evaluation: EvaluationFiles) -> str:
    """A sentence where the policy in the run is not the one that was evaluated; or empty."""
    known = str(evaluation.config.get("policy_sha256") or "")
    if not run.fingerprint or not known or known == run.fingerprint:
        return ""
    return (
        "This is not, or not as it stands, the policy that lies in the run now: the run was "
        "trained again since, or the policy was told what to aim at (--aim)."
    )


def budget_words(evaluation: EvaluationFiles, multiple: float) -> str:
    """Such as "ε = 0.05 (raw)"."""
    units = str(evaluation.config.get("epsilon_units") or "units unknown")
    epsilons = [row["epsilon"] for row in evaluation.rows if row["multiple"] == multiple]
    epsilon = epsilons[-1] if epsilons else evaluation.config.get("epsilon")
    if isinstance(epsilon, float) and not math.isnan(epsilon):
        return f"ε = {epsilon:g} ({units})"
    times = "" if multiple == 1 else f"{multiple:g} × "
    return f"{times}ε for each coordinate ({units})"


def interval_words(low: float, high: float) -> str:
    """Such as "(95 % interval 0.3 to 3.2)"."""
    if math.isnan(low) or math.isnan(high):
        return "(without an interval: all episodes are alike)"
    return f"(95 % interval {low:.1f} to {high:.1f})"


def violation_words(row: Row, limit: float) -> str:
    """How many episodes exceed the limit, and what that leaves certain, or possible."""
    rate, episodes = row["violation_rate"], row["episodes"]
    if math.isnan(rate):
        return "it is not known how many exceed the limit"
    of = " of the episodes" if math.isnan(episodes) else f" of {episodes:.0f} episodes"
    broken = row["cost_mean"] > limit
    end = row["violation_low"] if broken else row["violation_high"]
    which = "at least" if broken else "at most"
    bound = "" if math.isnan(end) else f" ({which} {percent(end)}, with 95 % confidence)"
    return f"{percent(rate)}{of} exceed the limit{bound}"


def percent(share: float) -> str:
    """Such as "5.8 %"."""
    text = f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"
    return text.replace("%", " %")


def join_words(words: Sequence[str]) -> str:
    """One, two and three."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
