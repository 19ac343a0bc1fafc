"""A victim whose critics are somebody else's: who defends itself need not have the last word."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from safer_offline.attacks.base import AttackTarget, rows_of


class Critics(Protocol):
    """Whom an attack asks what an action leads to; differentiable in every argument."""

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        ...

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        ...


def judged_by(target: AttackTarget, critics: Critics | None) -> AttackTarget:
    """The victim, judged by these critics instead of its own, if there are any."""
    return target if critics is None else WithCritics(target, critics)


class WithCritics:
    """The same victim, but it is judged by other critics than its own.

    Args:
        target: Who acts.
        critics: Who judges.
    """

    def __init__(self, target: AttackTarget, critics: Critics) -> None:
        self._target = target
        self._critics = critics

    def action_distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """See `AttackTarget`."""
        return self._target.action_distribution(observations)

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._critics.q_reward(observations, actions)

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._critics.q_cost(observations, actions)

    def rows(self, rows: Tensor | slice) -> WithCritics:
        """See `rows_of`."""
        return WithCritics(rows_of(self._target, rows), self._critics)
