"""Attacks that make the policy act unlike itself: MAD and its adaptive form.

Maximal action difference: Zhang et al., "Robust Deep Reinforcement Learning against Adversarial
Perturbations on State Observations", NeurIPS 2020. Adaptive form: Liu et al., "On the Robustness
of Safe Reinforcement Learning under Observational Perturbations", ICLR 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from safer_offline.attacks.base import AttackTarget, GradientAttack, Start
from safer_offline.attacks.selective import Selective, expected_cost
from safer_offline.errors import UsageError

RISKY_QUANTILE = 0.9
"""AMAD attacks where the expected cost is above this quantile of natural episodes."""


class MAD(GradientAttack):
    """Maximises KL(pi(.|s) || pi(.|s_hat)).

    Its gradient vanishes at s_hat = s, so it never starts there.
    """

    name: ClassVar[str] = "mad"
    starts: ClassVar[tuple[Start, ...]] = ("random",)

    def objective(self, target: AttackTarget, clean: Tensor) -> Callable[[Tensor], Tensor]:
        """See `GradientAttack`."""
        clean_mean, clean_std = target.action_distribution(clean)

        def divergence(perturbed: Tensor) -> Tensor:
            mean, std = target.action_distribution(perturbed)
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

    def __init__(
        self, *, threshold: float | None = None, steps: int = 20, restarts: int = 5
    ) -> None:
        super().__init__(steps=steps, restarts=restarts)
        self.threshold = threshold

    @property
    def needs_fit(self) -> bool:
        """True as long as there is no threshold."""
        return self.threshold is None

    def fit(self, target: AttackTarget, observations: Tensor) -> AMAD:
        """The same attack with the threshold that these natural observations (M, ds) give."""
        quantile = expected_cost(target, observations).quantile(RISKY_QUANTILE)
        fitted = copy.copy(self)
        fitted.threshold = quantile.item()
        return fitted

    def chosen(self, target: AttackTarget, observations: Tensor) -> Tensor:
        """See `Selective`.

        Raises:
            UsageError: If there is no threshold yet.
        """
        if self.threshold is None:
            raise UsageError("attack 'amad' has no threshold yet: call fit, or construct it with")
        return expected_cost(target, observations) >= self.threshold
