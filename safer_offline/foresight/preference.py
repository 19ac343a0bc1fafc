"""What is best of several trainings, going by what is foreseen of them.

Best is the largest natural return among those whose foreseen cost keeps the limit under every
attack. Where none does, those count that may keep it unattacked, if any is expected to, or else
all; among them those that keep it unattacked and under noise, if there are any; and of these the
least worst cost, or what returns most of those that come near it (`ALIKE`). The worst constant
offset is foreseen, too, but does not choose (`Foresight.decisive`).

Settings of less care than those given are best where they are foreseen to return more (`GAIN`) and
still to stay well within the limit (`BOLD`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from safer_offline.foresight.estimate import Estimate, Foresight
from safer_offline.training.loop import Run

WORTHWHILE = 0.8
"""Share of the returns that safety under attack must leave where not all models say that it is
needed: it may be a false alarm. On Car-Run it is, and the remedy would cost 70 % of the return."""
STANDING = 0.5
"""Less than this share of what another returns is no caution any more but harm. On Drone-Circle
recovery and attacks in training leave a tenth."""
ALIKE = 1.25
"""Worst costs within this factor of the least are equally bad; where none keeps the limit, return
then decides."""
ROOM = 0.1
"""Where no model foresees more than this share of the limit under any attack, less care is tried.
Where some do, up to half of the limit, it was tried twice, and too much was foreseen of it."""
GAIN = 0.05
"""Share of the return that less care must be foreseen to add. On Car-Run 539 in place of 535 were
foreseen of what then cost 12, where the settings given cost nothing."""
BOLD = 0.5
"""Share of the limit that less care may be foreseen to cost at worst; in no model more than all.
Small costs are overestimated, seldom underestimated (`benchmarks/foresight.py`)."""


@dataclass(frozen=True)
class Alternative:
    """One training that was tried.

    Attributes:
        settings: What differs from the settings given; nothing for those themselves.
        run: The training.
        foresight: What is foreseen of its policy.
    """

    settings: Mapping[str, Any]
    run: Run
    foresight: Foresight

    @property
    def name(self) -> str:
        """The settings in words."""
        return in_words(self.settings)

    @property
    def natural(self) -> Estimate:
        """What is foreseen without an attack."""
        return self.foresight.estimates[0]

    @property
    def undisturbed(self) -> list[Estimate]:
        """What is foreseen while nobody means harm: unattacked, and under noise."""
        return [one for one in self.foresight.estimates if one.attack in {"natural", "uniform"}]

    @property
    def worst(self) -> Estimate:
        """What is foreseen where it costs most, of what is decisive."""
        return max(self.foresight.decisive, key=lambda one: one.cost)

    @property
    def doubtful(self) -> bool:
        """Whether the limit is foreseen to break, or what is done unattacked not to be foreseen."""
        return self.foresight.breaks_limit or not self.natural.trusted

    def stays_below(self, cost: float) -> bool:
        """Whether no model foresees more than that, by estimates that are all to be trusted."""
        return all(one.trusted and one.cost_interval[1] <= cost for one in self.foresight.decisive)


class Preference(Protocol):
    """Says which of several is best, and why."""

    def __call__(self, found: Sequence[Alternative], *, limit: float) -> tuple[Alternative, str]:
        """The settings given come first; `limit` is of cost."""
        ...


def in_words(settings: Mapping[str, Any]) -> str:
    """Such as `margin=1 recovery_weight=1`."""
    told = (
        f"{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in settings.items()
    )
    return " ".join(told) or "as given"


def best(
    found: Sequence[Alternative], *, limit: float, keep_return: float | None = None
) -> tuple[Alternative, str]:
    """Which, and why, in words.

    Args:
        found: First the settings given, then alternatives.
        limit: Of cost.
        keep_return: Share of the returns foreseen of the settings given, unattacked and under
            noise, that another must keep, where they keep the limit unattacked; where all models
            say that these break it under attack, one that holds need keep no more than `STANDING`.
            Besides, none is best that returns less than that share of another. None demands
            neither.
    """
    unattacked = [one for one in found if _may_keep(one, limit)]
    if not any(one.natural.cost <= limit for one in unattacked):
        # Then the models err alike: of what flies 11 to 29 are foreseen on Drone-Circle, where the
        # simulator has none, and which of them still may keep a limit of 10 is left to chance.
        unattacked = []
    left, among = list(found), []

    def narrow(to: Sequence[Alternative], words: str) -> None:
        nonlocal left
        if 0 < len(to) < len(left):
            left = list(to)
            among.append(words)

    narrow(unattacked, "of those that may keep it unattacked")
    if not unattacked:
        narrow([one for one in found if one.natural.trusted], "of those that are to be foreseen")
    if keep_return is not None:
        if found[0] in unattacked:
            broken = any(one.cost_interval[0] > limit for one in found[0].foresight.decisive)
            kept = [
                one
                for one in left
                if _keeps(one, found[0], keep_return)
                or (broken and holds(one, limit) and _keeps(one, found[0], STANDING))
            ]
            narrow(kept, f"of those that return {keep_return:.0%} of what the settings given do")
        most = max(one.natural.reward for one in left)
        standing = [one for one in left if _at_least(one.natural, STANDING, most)]
        narrow(standing, f"of those that return {STANDING:.0%} of what another does")
    keeping = [one for one in left if holds(one, limit)]
    if keeping:
        return (
            max(keeping, key=lambda one: one.natural.reward),
            f"Of the {len(keeping)} that are foreseen to keep the limit of {limit:g} under every "
            "attack it returns most.",
        )
    undisturbed = [one for one in left if all(it.cost <= limit for it in one.undisturbed)]
    narrow(undisturbed, "of those that keep it unattacked and under noise")
    least = min(one.worst.cost for one in left)
    alike = [one for one in left if one.worst.cost <= ALIKE * least]
    words = ", and ".join(among)
    return (
        max(alike, key=lambda one: one.natural.reward),
        f"None is foreseen to keep the limit of {limit:g} under every attack; "
        + (f"{words}, " if words else "")
        + (
            "it exceeds it least."
            if len(alike) == 1
            else f"{len(alike)} exceed it about equally, and of these it returns most."
        ),
    )


def boldest(found: Sequence[Alternative], *, limit: float) -> tuple[Alternative, str]:
    """The same where all but the first take less care."""
    given, *others = found
    sound = [
        one
        for one in others
        if one.natural.reward > _share_of(given.natural.reward, 1 + GAIN)
        and one.worst.cost <= BOLD * limit
        and one.stays_below(limit)
    ]
    if not sound:
        return given, "Less care is foreseen to return hardly more, or to come too near the limit."
    return (
        max(sound, key=lambda one: one.natural.reward),
        f"Hardly any cost is foreseen of the settings given; this is foreseen to return more, and "
        f"to cost no more than {BOLD:.0%} of the limit of {limit:g} under every attack but a "
        "constant offset, which does not choose.",
    )


def holds(one: Alternative, limit: float) -> bool:
    """Whether it keeps the limit under every attack."""
    return _may_keep(one, limit) and one.worst.cost <= limit


def _may_keep(one: Alternative, limit: float) -> bool:
    """Whether it keeps the limit unattacked, or at least not all models say that it breaks it."""
    return one.natural.cost_interval[0] <= limit and one.natural.trusted


def _keeps(one: Alternative, given: Alternative, share: float) -> bool:
    """Whether it keeps that share of the returns of the settings given, unattacked and noisy."""
    return all(
        _at_least(mine, share, other.reward)
        for mine, other in zip(one.undisturbed, given.undisturbed, strict=True)
    )


def _at_least(one: Estimate, share: float, reward: float) -> bool:
    """Whether it returns that share of another return, which may be negative."""
    return one.reward >= _share_of(reward, share)


def _share_of(reward: float, share: float) -> float:
    """That share of a return; of a negative one, a share below 1 is less, too."""
    return reward - (1 - share) * abs(reward)
