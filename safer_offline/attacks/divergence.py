"""Attacks that make the policy act unlike itself: MAD and its adaptive form.

Maximal action difference: Zhang et al., "Robust Deep Reinforcement Learning against Adversarial
Perturbations on State Observations", NeurIPS 2020. Adaptive form: Liu et al., "On the Robustness
of Safe Reinforcement Learning under Observational Perturbations", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.attacks.base import ActionAttack, AttackTarget, Start
from safer_offline.attacks.selective import Selective


class MAD(ActionAttack):
    """Maximises KL(pi(.|s) || pi(.|s_hat)).

    Its gradient vanishes at s_hat = s, so it never starts there.
    """

    name: ClassVar[str] = "mad"
    starts: ClassVar[tuple[Start, ...]] = ("random",)

    def judge(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """See `ActionAttack`."""
        clean_mean, clean_std = target.action_distribution(clean)

        def divergence(mean: Tensor, std: Tensor) -> Tensor:
            squares = clean_std**2 + (clean_mean - mean) ** 2
            return (torch.log(std / clean_std) + squares / (2 * std**2) - 0.5).sum(dim=-1)

        return divergence


class AMAD(Selective, MAD):
    """MAD, but only at observations where the policy expects much cost.

    Args:
        threshold: Attack where q_cost(s, mean(s)) is at least this. None until `fit` has found the
            90 % quantile over natural episodes of the same policy.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    name: ClassVar[str] = "amad"
    critics: ClassVar[tuple[str, ...]] = ("cost",)
