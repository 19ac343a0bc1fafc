"""Who attacks the policy while it learns, and what the attacker may ask."""

from __future__ import annotations

from torch import Tensor

from safer_offline.attacks import ATTACKS, Attack, make_attack
from safer_offline.attacks.base import GradientAttack
from safer_offline.errors import UsageError
from safer_offline.learners.robust import ActorTarget
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import GaussianPolicy


def attacker(name: str, *, steps: int) -> Attack:
    """An attack for training: one start, few steps.

    Raises:
        UsageError: If there is none of that name, or it must see the finished policy first.
    """
    kind = ATTACKS.get(name)
    if isinstance(kind, type) and issubclass(kind, GradientAttack):
        attack = make_attack(name, steps=steps, restarts=1)
    else:
        attack = make_attack(name)
    if attack.needs_fit:
        raise UsageError(f"attack '{name}' needs a finished policy; train with mc, mr or mad")
    return attack


class Victim(ActorTarget):
    """A policy that learns, with its critics.

    Args:
        network: The policy.
        reward_critic: Value of actions.
        cost_critic: Cost of actions.
    """

    def __init__(
        self, network: GaussianPolicy, reward_critic: CriticEnsemble, cost_critic: CriticEnsemble
    ) -> None:
        super().__init__(network)
        self._reward_critic, self._cost_critic = reward_critic, cost_critic

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._reward_critic.mean(observations, actions)

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._cost_critic.mean(observations, actions)
