"""Attacks that know nothing of their victim: none at all, and two kinds of noise."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from safer_offline.attacks.base import Attack, AttackTarget
from safer_offline.attacks.budget import Box
from safer_offline.attacks.noise import NoiseSource


class Natural(Attack):
    """No attack: the policy sees the true observations."""

    name: ClassVar[str] = "natural"

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
        return observations.detach()


class NoiseAttack(Attack):
    """Noise of some distribution, drawn anew at each step and clipped to the budget."""

    @abstractmethod
    def sample(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        """Perturbations of `shape` = (B, ds) in multiples of epsilon, before clipping."""

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
        clean = observations.detach()
        deltas = self.sample(noise, tuple(clean.shape)).to(clean) * epsilon.to(clean)
        return Box.around(clean, epsilon).project(clean + deltas)


class Uniform(NoiseAttack):
    """Uniform noise over the whole budget."""

    name: ClassVar[str] = "uniform"

    def sample(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        """See `NoiseAttack`."""
        return noise.uniform(shape)


class Gaussian(NoiseAttack):
    """Normal noise whose standard deviation is half the budget."""

    name: ClassVar[str] = "gaussian"

    def sample(self, noise: NoiseSource, shape: tuple[int, ...]) -> Tensor:
        """See `NoiseAttack`."""
        return noise.normal(shape) / 2
