"""A sensor that is off by the same amount for a whole episode, or ever more."""

from __future__ import annotations

import copy
import itertools
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.attacks.base import Attack, AttackTarget
from safer_offline.attacks.budget import Box
from safer_offline.attacks.noise import NoiseSource
from safer_offline.errors import UsageError

CORNERS = 64
"""Most corners of a budget that a search tries; all of them where there are no more."""


def corners(size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """All corners of the box [-1, 1]^size, or `CORNERS` of them at random, one in each row."""
    if 2**size <= CORNERS:
        return np.array(list(itertools.product((-1, 1), repeat=size)), np.float32)
    return generator.choice(np.array([-1, 1], np.float32), size=(CORNERS, size))


class Bias(Attack):
    """Adds one constant offset: what a sensor that is badly mounted or calibrated does.

    It needs neither gradients nor critics, and where a policy keeps its distance from a border by
    what it observes, no other attack may do more. Which offset harms most shows only in whole
    episodes; `safer_offline.evaluation.adversaries` searches for it.

    Args:
        offset: The offset of each coordinate in multiples of its budget, from -1 to 1; none is
            searched for then.
        population: Offsets that the search tries in each generation.
        generations: Generations of the search, after one of corners of the budget.
        episodes: Episodes in which each offset is tried.
        seed: Of the search.

    Raises:
        UsageError: If one of them is impossible.
    """

    name: ClassVar[str] = "bias"

    def __init__(
        self,
        *,
        offset: tuple[float, ...] | None = None,
        population: int = 32,
        generations: int = 8,
        episodes: int = 4,
        seed: int = 0,
    ) -> None:
        if offset is not None and not all(-1 <= number <= 1 for number in offset):
            raise UsageError(
                f"attack '{self.name}': the offset counts in budgets, from -1 to 1, and not "
                f"{offset}"
            )
        if population < 4 or generations < 0 or episodes < 1 or seed < 0:
            raise UsageError(
                f"attack '{self.name}' needs a population of at least 4, one episode, and neither "
                f"generations nor seed below 0, not population={population}, "
                f"generations={generations}, episodes={episodes}, seed={seed}"
            )
        self.offset = offset
        self.population = population
        self.generations = generations
        self.episodes = episodes
        self.seed = seed

    @property
    def needs_rehearsal(self) -> bool:
        """True as long as there is no offset."""
        return self.offset is None

    def with_offset(self, offset: tuple[float, ...]) -> Bias:
        """The same attack with this offset."""
        found = copy.copy(self)
        found.offset = offset
        return found

    def reached(self, whole: Tensor, previous: Tensor | None) -> Tensor:
        """The perturbation (B, ds) of a step.

        Args:
            whole: What the offset amounts to, shape (B, ds).
            previous: The perturbation one step earlier, if there was one.
        """
        return whole

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`.

        Raises:
            UsageError: If there is no offset yet, or it is of another length.
        """
        clean = observations.detach()
        if self.offset is None:
            raise UsageError(
                f"attack '{self.name}' has no offset yet: evaluate finds it, or give one"
            )
        if len(self.offset) != clean.shape[1]:
            raise UsageError(
                f"attack '{self.name}' has an offset of {len(self.offset)} numbers, but an "
                f"observation has {clean.shape[1]} coordinates"
            )
        epsilon = epsilon.to(clean)
        whole = (torch.tensor(self.offset).to(clean) * epsilon).expand_as(clean)
        return Box.around(clean, epsilon).project(clean + self.reached(whole, previous))


class Drift(Bias):
    """An offset that grows from nothing, in equal steps, until it is whole.

    So slow that no single step shows it: what sensors do as they warm up or wear.

    Args:
        duration: Steps until the offset is whole.
        offset: See `Bias`, like all others.
        population: See there.
        generations: See there.
        episodes: See there.
        seed: See there.
    """

    name: ClassVar[str] = "drift"

    def __init__(
        self,
        *,
        duration: int = 100,
        offset: tuple[float, ...] | None = None,
        population: int = 32,
        generations: int = 8,
        episodes: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(
            offset=offset,
            population=population,
            generations=generations,
            episodes=episodes,
            seed=seed,
        )
        if duration < 1:
            raise UsageError(f"attack 'drift': duration must be at least one step, not {duration}")
        self.duration = duration

    def reached(self, whole: Tensor, previous: Tensor | None) -> Tensor:
        """See `Bias`."""
        before = torch.zeros_like(whole) if previous is None else previous
        return torch.minimum((before + whole / self.duration).abs(), whole.abs()) * whole.sign()
