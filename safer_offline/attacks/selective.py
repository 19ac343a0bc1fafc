"""Attacks that leave most observations alone."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from safer_offline.attacks.base import AttackTarget, GradientAttack, rows_of
from safer_offline.attacks.noise import NoiseSource


class Selective(GradientAttack):
    """A gradient attack at chosen observations; put it before the attack whose objective counts."""

    @abstractmethod
    def chosen(self, target: AttackTarget, observations: Tensor) -> Tensor:
        """At which of the true observations (B, ds) it attacks, a mask (B,)."""

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
