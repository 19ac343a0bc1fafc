"""The kinds of behaviour that every task has: what a robust learner needs to see in its data.

A task brings the drivers; what makes a family of them is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from safer_offline.datasets.behaviors.base import (
    BehaviorFamily,
    Controller,
    ExplorationNoise,
    NoisyController,
    SwitchingController,
)

Draw = Callable[[np.random.Generator], Controller]
"""Draws the driver of one episode."""


def uniform(generator: np.random.Generator, low: float, high: float) -> float:
    """A number between `low` and `high`."""
    return float(generator.uniform(low, high))


def broad(
    draw: Draw, *, noise: float = 0.4, burst_rate: float = 0.02, switch_every: float = 75.0
) -> BehaviorFamily:
    """Slow to fast, far inside to far outside, noisy, with changes of driver on the way.

    Args:
        draw: Draws drivers from wide ranges.
        noise: Largest scale of an episode's noise; each episode draws its own.
        burst_rate: Largest probability, at each step, of a burst of one random action.
        switch_every: Steps between changes of driver, on average, in the most restless episodes.
    """

    def noisy(generator: np.random.Generator) -> Controller:
        drivers = SwitchingController(
            draw, generator, switch_rate=uniform(generator, 0.0, 1.0 / switch_every)
        )
        exploration = ExplorationNoise(
            scale=uniform(generator, 0.0, noise), burst_rate=uniform(generator, 0.0, burst_rate)
        )
        return NoisyController(drivers, exploration, generator)

    return BehaviorFamily(
        name="broad",
        description="slow to fast, far inside to far outside the limit, noisy, with changes of "
        "driver and bursts of random actions",
        draw=noisy,
    )


def frontier(draw: Draw, *, noise: float = 0.15) -> BehaviorFamily:
    """As fast as its margin allows, from well inside the limit to just outside; little noise.

    Args:
        draw: Draws drivers that are fast for their margin.
        noise: Largest scale of an episode's noise.
    """
    return _steady(
        "frontier",
        "as fast as its margin allows, from well inside the limit to just outside",
        draw,
        noise=noise,
    )


def cautious(draw: Draw, *, noise: float = 0.1) -> BehaviorFamily:
    """Practically always without cost, from slow to nearly as fast as that allows.

    Args:
        draw: Draws drivers that keep their distance from the limit.
        noise: Largest scale of an episode's noise.
    """
    return _steady(
        "cautious",
        "keeps its distance from the limit, from slow to nearly as fast as that allows",
        draw,
        noise=noise,
    )


def recovery(draw: Draw, *, noise: float = 0.2, switch_every: float = 40.0) -> BehaviorFamily:
    """Fast, and every few seconds on another path, in or out: shows how to come back at speed.

    Under attack a policy finds itself where no careful driver goes. What to do there must be in
    the data, too.

    Args:
        draw: Draws fast drivers, some of which stray far outside.
        noise: Largest scale of an episode's noise.
        switch_every: Steps between changes of driver, on average.
    """

    def noisy(generator: np.random.Generator) -> Controller:
        drivers = SwitchingController(draw, generator, switch_rate=1.0 / switch_every)
        exploration = ExplorationNoise(scale=uniform(generator, 0.0, noise))
        return NoisyController(drivers, exploration, generator)

    return BehaviorFamily(
        name="recovery",
        description="fast, and every few seconds on another path, inside or outside the limit",
        draw=noisy,
    )


def _steady(name: str, description: str, draw: Draw, *, noise: float) -> BehaviorFamily:
    """One driver for a whole episode, with an episode's own amount of noise."""

    def noisy(generator: np.random.Generator) -> Controller:
        exploration = ExplorationNoise(scale=uniform(generator, 0.0, noise))
        return NoisyController(draw(generator), exploration, generator)

    return BehaviorFamily(name=name, description=description, draw=noisy)
