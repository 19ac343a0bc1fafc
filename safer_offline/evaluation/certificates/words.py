"""A certificate in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from safer_offline.evaluation.certificates.certificate import Certificate

_NOT_CERTIFIED = (
    "Not certified: whole episodes. An attack leads to other states than these, which were visited "
    "without one, and the critic only estimates."
)


def in_words(certificates: Mapping[str, Certificate], *, cost_limit: float | None) -> list[str]:
    """What is certain, beside what attacks find, and what is not.

    Args:
        certificates: Of one policy, by the budget in words; empty if there is only one.
        cost_limit: Of an episode.
    """
    refused = {one.refused for one in certificates.values()}
    if any(refused):
        return [f"Nothing is certified: {reason}." for reason in refused]
    sentences: list[str] = []
    for budget, one in certificates.items():
        facts = _facts(one, cost_limit=cost_limit)
        sentences += [f"{budget}: {' '.join(facts)}"] if budget else facts
    return [*sentences, _NOT_CERTIFIED] if sentences else []


def _facts(one: Certificate, *, cost_limit: float | None) -> list[str]:
    assert one.certified is not None
    assert one.found is not None
    assert one.possible is not None
    sentences = [
        f"Certified at {one.states:,} visited states: no attack moves the action by more than "
        f"{one.certified.mean:.2f} of its range in the mean, {one.certified.worst:.2f} at worst "
        f"(attacks reach {one.found.mean:.2f} and {one.found.worst:.2f}; any action at all is "
        f"within {one.possible.mean:.2f} and {one.possible.worst:.2f})."
    ]
    if one.cost is None:
        return [*sentences, f"Nothing is certified of cost: {one.cost_refused}."]
    cost = one.cost
    return [
        *sentences,
        f"At {cost.certified:.0%} of these states even the worst certified action keeps the "
        "expected cost within the limit, as the policy's own critic sees it (attacks leave "
        f"{cost.found:.0%}, no attack {cost.natural:.0%}). The critic counts discounted cost, in "
        f"which the limit of {cost_limit:g} is {cost.limit:.3g}.",
    ]
