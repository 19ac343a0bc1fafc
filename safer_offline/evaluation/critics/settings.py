"""How critics are fitted to a policy that is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from safer_offline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """How critics are fitted; the same for reward and cost.

    Attributes:
        updates: Gradient steps.
        batch_size: Transitions of each.
        hidden_sizes: Hidden layers of each network.
        members: Networks that give one value together, their mean.
        learning_rate: Of Adam; it falls to zero in the second half.
        discount: Of what comes a step later.
        polyak: Share of the networks that goes into those which bootstrap, in each step.
        warm_up: Share of the steps that begin with what the episodes themselves went on to earn.
        transitions: Most that are taken from a dataset; of a larger one, random episodes.
        episodes: Made in the simulator for `rollouts`, every second one with exploration noise.
        seed: Of networks, batches and rollouts; it has nothing to do with the evaluation's.
    """

    updates: int = 10_000
    batch_size: int = 256
    hidden_sizes: tuple[int, ...] = (64, 64)
    members: int = 2
    learning_rate: float = 1e-3
    discount: float = 0.99
    polyak: float = 0.05
    warm_up: float = 0.2
    transitions: int = 200_000
    episodes: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "members", "transitions"):
            if getattr(self, name) < 1:
                raise UsageError(f"critics: {name} must be at least 1, not {getattr(self, name)}")
        if self.episodes < 2:
            raise UsageError(
                f"critics: episodes must be at least 2, one of them with noise, not {self.episodes}"
            )
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise UsageError(
                f"critics: hidden_sizes must be positive numbers, not {self.hidden_sizes}"
            )
        if not self.learning_rate > 0:
            raise UsageError(
                f"critics: learning_rate must be positive, but is {self.learning_rate}"
            )
        if not 0 < self.polyak <= 1:
            raise UsageError(f"critics: polyak must be above 0 and at most 1, not {self.polyak}")
        for name in ("discount", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"critics: {name} must be at least 0 and below 1, not {getattr(self, name)}"
                )
        if self.seed < 0:
            raise UsageError(f"critics: seed must not be negative, but is {self.seed}")
