"""What a behaviour policy is: a family of controllers, one drawn an episode, and their noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safer_offline.context import EnvironmentContext

FloatArray = NDArray[np.float32]


class Controller(Protocol):
    """Acts for one episode."""

    def __call__(self, observation: FloatArray) -> list[float]:
        """The action, one number an actuator; it is clipped to [-1, 1] before it is executed.

        A list and not an array: a controller computes with a handful of scalars, and it runs once
        a simulated step.
        """
        ...


@dataclass(frozen=True)
class BehaviorFamily:
    """A distribution over controllers.

    Attributes:
        name: Stored with the dataset; every transition tells which family acted.
        description: How it drives, in a few words, for tables and dataset cards.
        draw: Draws the controller of one episode from that episode's own generator.
        checkpoint_sha256: Hash of its weights, where it was learned.
        context: Environment that it was learned for, where it tells.
    """

    name: str
    description: str
    draw: Callable[[np.random.Generator], Controller]
    checkpoint_sha256: str | None = None
    context: EnvironmentContext | None = None


@dataclass(frozen=True)
class ExplorationNoise:
    """What is added to a controller's actions, so that a dataset also shows what they avoid.

    Attributes:
        scale: Stationary standard deviation of an Ornstein-Uhlenbeck process, in action units.
        correlation: What remains of that noise one step later.
        burst_rate: Probability, at each step, that a burst of one constant random action begins.
        burst_steps: Longest burst.
    """

    scale: float = 0.0
    correlation: float = 0.85
    burst_rate: float = 0.0
    burst_steps: int = 10


class NoisyController:
    """A controller whose actions are disturbed as `ExplorationNoise` says.

    Args:
        controller: Who acts beneath the noise; an attribute, too.
        noise: How it is disturbed.
        generator: Of the noise.
    """

    def __init__(
        self, controller: Controller, noise: ExplorationNoise, generator: np.random.Generator
    ) -> None:
        self.controller = controller
        self._noise = noise
        self._generator = generator
        self._offset: list[float] = []
        self._burst: list[float] = []
        self._burst_left = 0

    def __call__(self, observation: FloatArray) -> list[float]:
        """The disturbed action."""
        action = self.controller(observation)
        noise, generator = self._noise, self._generator
        if self._burst_left == 0 and generator.random() < noise.burst_rate:
            self._burst_left = int(generator.integers(1, noise.burst_steps + 1))
            self._burst = generator.uniform(-1.0, 1.0, len(action)).tolist()
        if self._burst_left > 0:
            self._burst_left -= 1
            return self._burst
        innovation = noise.scale * (1.0 - noise.correlation**2) ** 0.5
        steps = generator.standard_normal(len(action)).tolist()
        previous = self._offset or [0.0] * len(action)
        self._offset = [
            noise.correlation * old + innovation * step
            for old, step in zip(previous, steps, strict=True)
        ]
        return [a + offset for a, offset in zip(action, self._offset, strict=True)]


class SwitchingController:
    """Hands over to a freshly drawn controller at random moments of an episode.

    Its episodes show recoveries: a driver who stays inside takes over from one who went outside.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Controller],
        generator: np.random.Generator,
        *,
        switch_rate: float,
    ) -> None:
        self._draw = draw
        self._generator = generator
        self._switch_rate = switch_rate
        self._current = draw(generator)

    def __call__(self, observation: FloatArray) -> list[float]:
        """The action of whoever acts now."""
        if self._generator.random() < self._switch_rate:
            self._current = self._draw(self._generator)
        return self._current(observation)
