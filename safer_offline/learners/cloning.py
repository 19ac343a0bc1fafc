"""Behaviour cloning: of everybody, or of the episodes that kept the limit; robust on request.

The baselines that every comparison begins with. As in OSRL (Liu et al., "Datasets and Benchmarks
for Offline Safe Reinforcement Learning", 2023; its `BC` with the modes `all` and `safe`), but for
two things: observations are standardised, and the deviation of the actions is learned by default
(`loss="nll"`), because attacks on the policy need one; `loss="mse"` is OSRL's own loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from safer_offline.attacks import MAD, GeneratorNoise, attack_budget
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import DataError, UsageError
from safer_offline.learners.base import policy_info
from safer_offline.learners.mstep import mixed_attack
from safer_offline.learners.simple import SimpleLearner
from safer_offline.policies.gaussian import gaussian_nll
from safer_offline.policies.layers import gradient_step
from safer_offline.policies.trained import TrainedPolicy


@dataclass(frozen=True, kw_only=True)
class BCConfig:
    """Settings of behaviour cloning.

    Attributes:
        loss: `nll`, the likelihood of a Gaussian, or `mse`, the squared error of its mean.
        adversarial_weight: Weight of attacked observations in the loss, against 1 for true ones;
            0 is plain cloning.
        epsilon: Budget of those attacks: one number, or one an observation coordinate.
        epsilon_units: What `epsilon` counts: raw observation units or the data's deviations.
        attack_steps: Gradient steps of each attack (MAD, which needs no critics).
        ramp_share: Part of the training over which epsilon grows from 0 to its full size.
        hidden_sizes: Hidden layers of the policy.
        batch_size: Rows of a batch.
        learning_rate: Of Adam.
    """

    loss: Literal["nll", "mse"] = "nll"
    adversarial_weight: float = 0.0
    epsilon: float | tuple[float, ...] = 0.05
    epsilon_units: Literal["raw", "std"] = "raw"
    attack_steps: int = 4
    ramp_share: float = 0.5
    hidden_sizes: tuple[int, ...] = (256, 256)
    batch_size: int = 512
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.adversarial_weight < math.inf:
            raise UsageError(
                f"adversarial_weight must be >= 0 and finite, but is {self.adversarial_weight}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be > 0 and finite, but is {self.learning_rate}")
        if not 0 <= self.ramp_share <= 1:
            raise UsageError(f"ramp_share must be between 0 and 1, but is {self.ramp_share}")
        if self.attack_steps < 1 or self.batch_size < 1:
            raise UsageError("attack_steps and batch_size must be at least 1")


@dataclass(frozen=True, kw_only=True)
class BCSafeConfig(BCConfig):
    """Settings of the cloning of safe episodes.

    Attributes:
        cost_limit: Largest cost of an episode that is cloned.
    """

    cost_limit: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cost_limit < math.inf:
            raise UsageError(f"cost_limit must be >= 0 and finite, but is {self.cost_limit}")


C = TypeVar("C", bound=BCConfig)


def squared_error(actions: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(a - mean)^2, averaged over the action's coordinates, shape (B,); the deviation is free."""
    return ((actions - mean) ** 2).mean(-1)


_LOSSES = {"nll": gaussian_nll, "mse": squared_error}


class Cloning(SimpleLearner[C]):
    """Imitates rows of the dataset; subclasses say which."""

    def build(self) -> None:
        """See `SimpleLearner`."""
        config = self.config
        self.actor = self.gaussian_policy(config.hidden_sizes)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)
        self.batches = self.choose_rows()
        self.epsilon = attack_budget(
            config.epsilon, self.actor.observations.std, units=config.epsilon_units
        )
        self._attacks = (MAD(steps=config.attack_steps, restarts=1),)
        self._info = policy_info(self)

    def choose_rows(self) -> TransitionSampler:
        """Draws the rows to imitate."""
        return self.sampler("observations", "actions", batch_size=self.config.batch_size)

    def learn(self) -> dict[str, Tensor | float]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        observations, actions = batch["observations"], batch["actions"]
        loss_of = _LOSSES[config.loss]
        loss = clean = loss_of(actions, *self.actor(observations)).mean()
        losses: dict[str, Tensor | float] = {str(config.loss): clean.detach()}
        if config.adversarial_weight:
            attacked = loss_of(actions, *self.actor(self._attack(observations))).mean()
            loss = clean + config.adversarial_weight * attacked
            losses[f"{config.loss}_attacked"] = attacked.detach()
        gradient_step(self.optimizer, loss, max_norm=math.inf)
        return {"policy": loss.detach(), **losses}

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(self.actor)

    def _attack(self, observations: Tensor) -> Tensor:
        share = self.config.ramp_share
        ramp = min(1.0, self.step / self.steps / share) if share else 1.0
        return mixed_attack(
            self._attacks,
            TrainedPolicy(self._info, actor=self.actor),
            observations,
            epsilon=ramp * self.epsilon,
            noise=GeneratorNoise(self.generator),
        )


class BC(Cloning[BCConfig]):
    """Behaviour cloning of all episodes."""

    name: ClassVar[str] = "bc"
    Config = BCConfig


class BCSafe(Cloning[BCSafeConfig]):
    """Behaviour cloning of the episodes that kept the cost limit."""

    name: ClassVar[str] = "bc-safe"
    Config = BCSafeConfig

    def choose_rows(self) -> TransitionSampler:
        """Rows of safe episodes alone, all alike."""
        episodes = self.dataset.episodes
        safe = (episodes["cost"] <= self.config.cost_limit).to_numpy()
        if not safe.any():
            raise DataError(
                f"no episode keeps the cost limit of {self.config.cost_limit:g}",
                path=self.dataset.path,
                field="costs",
                remedy=f"there is nothing to clone below --cost-limit {episodes['cost'].min():g}",
            )
        return TransitionSampler(
            self.dataset.table(("observations", "actions")),
            batch_size=self.config.batch_size,
            seed=self.seed,
            weights=torch.tensor(safe, dtype=torch.float32),
            repeats=torch.tensor(episodes["length"].to_numpy()),
        )
