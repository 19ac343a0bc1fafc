"""Attacks by name, as training wants them: one start, few steps, several in one ascent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from safer_offline.attacks.base import ActionAttack, Attack, GradientAttack
from safer_offline.attacks.jointly import Jointly
from safer_offline.attacks.registry import ATTACKS, make_attack
from safer_offline.errors import UsageError


def training_attacks(names: Sequence[str], *, steps: int) -> tuple[Attack, ...]:
    """Whom a policy meets while it learns, each in an equal part of a batch.

    Those that see observations only through what the policy does climb together (`Jointly`), if
    all of them do and each may use all of the budget.

    Args:
        names: As in `ATTACKS`.
        steps: Gradient steps of those that take any.

    Raises:
        UsageError: If there is none of a name, or nobody is named, or one must see the finished
            policy first.
    """
    if not names:
        raise UsageError("attacks names nobody; adversarial_weight=0 goes without")
    several = tuple(_training_attack(name, steps=steps) for name in names)
    together = [one for one in several if _climbs_freely(one)]
    if len(together) == len(several):
        return (Jointly(*together, steps=steps),)
    return several


def _training_attack(name: str, *, steps: int) -> Attack:
    kind = ATTACKS.get(name)
    if isinstance(kind, type) and issubclass(kind, GradientAttack):
        attack = make_attack(name, steps=steps, restarts=1)
    else:
        attack = make_attack(name)
    if attack.needs_fit or attack.needs_rehearsal:
        raise UsageError(f"attack '{name}' needs a finished policy; train with mc, mr or mad")
    return attack


def _climbs_freely(attack: Attack) -> TypeGuard[ActionAttack]:
    """Whether it is an objective of actions, within all of the budget."""
    return isinstance(attack, ActionAttack) and type(attack).allowed is ActionAttack.allowed
