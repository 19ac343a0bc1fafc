"""Attacks that do not treat all observations alike: those above a threshold, found when fitted."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safer_offline.attacks.base import AttackTarget, GradientAttack, rows_of
from safer_offline.attacks.noise import NoiseSource
from safer_offline.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self  # of Python 3.11


class Discerning(GradientAttack):
    """A gradient attack that tells apart observations by whether a score reaches a threshold.

    Args:
        threshold: Of the score. None until `fit` has found the quantile over natural episodes of
            the same policy.
        steps: See `GradientAttack`.
        restarts: See `GradientAttack`.
    """

    quantile: float = 0.9
    """Of the scores in natural episodes."""

    def __init__(
        self, *, threshold: float | None = None, steps: int = 20, restarts: int = 5
    ) -> None:
        super().__init__(steps=steps, restarts=restarts)
        self.threshold = threshold

    @property
    def needs_fit(self) -> bool:
        """True as long as there is no threshold."""
        return self.threshold is None

    def score(self, target: AttackTarget, observations: Tensor) -> Tensor:
        """What the threshold is of: the expected cost, for (B, ds) shape (B,)."""
        return expected_cost(target, observations)

    def fit(self, target: AttackTarget, observations: Tensor) -> Self:
        """The same attack with the threshold that these natural observations (M, ds) give."""
        fitted = copy.copy(self)
        fitted.threshold = self.score(target, observations).quantile(self.quantile).item()
        return fitted

    def chosen(self, target: AttackTarget, observations: Tensor) -> Tensor:
        """Which of the true observations (B, ds) reach the threshold, a mask (B,).

        Raises:
            UsageError: If there is no threshold yet.
        """
        if self.threshold is None:
            raise UsageError(
                f"attack '{self.name}' has no threshold yet: call fit, or construct it with"
            )
        return self.score(target, observations) >= self.threshold


class Selective(Discerning):
    """An attack at such observations alone; put it before the attack whose objective counts."""

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`."""
        perturbed = observations.detach().clone()
        rows = self.chosen(target, perturbed)
        if rows.any():
            perturbed[rows] = super().perturb(
                rows_of(target, rows),
                observations[rows],
                epsilon=epsilon,
                noise=noise.rows(rows),
                previous=None if previous is None else previous[rows],
            )
        return perturbed


@torch.no_grad()
def expected_cost(target: AttackTarget, observations: Tensor) -> Tensor:
    """q_cost(s, mean(s)) of (B, ds), shape (B,)."""
    mean, _ = target.action_distribution(observations)
    return target.q_cost(observations, mean)
