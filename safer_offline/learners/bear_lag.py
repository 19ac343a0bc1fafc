"""BEAR-Lag: stay where the data's actions are, at a price for cost that a controller sets.

Source: Kumar et al., "Stabilizing Off-Policy Q-Learning via Bootstrapping Error Reduction",
NeurIPS 2019, with the multiplier of Stooke et al., ICML 2020; see `lagrangian`. The policy
maximises Q - lambda Qc, and a solved weight alpha holds the distance of its actions from those of a
VAE, the maximum mean discrepancy before the tanh, at a threshold.

As in OSRL, the policy acts by its middle, where the paper takes the best of ten of its samples by
reward alone, and its values count from the first step on (the paper begins by cloning:
`cloning_steps`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from safer_offline.errors import UsageError
from safer_offline.learners.constrained import in_pieces, repeat_rows, require_positive
from safer_offline.learners.lagrangian import LagrangianConfig, LagrangianLearner
from safer_offline.learners.robust import RobustConfig
from safer_offline.policies.squashed import SquashedGaussianPolicy
from safer_offline.policies.trained import TrainedPolicy

Kernel = Literal["gaussian", "laplacian"]


@dataclass(frozen=True, kw_only=True)
class BEARLagConfig(LagrangianConfig, RobustConfig):
    """Settings of BEAR-Lag (Kumar et al., NeurIPS 2019; multiplier of Stooke et al., ICML 2020).

    Defaults are OSRL's, which trains for 300,000 steps.

    Attributes:
        kernel: Of the discrepancy.
        kernel_width: Its sigma.
        discrepancy_threshold: What the discrepancy is held at.
        matched_actions: Actions of either side that it compares at each state.
        alpha_rate: Step size of its weight.
        cloning_steps: Updates in which the policy only stays near the data.
    """

    kernel: Kernel = "gaussian"
    kernel_width: float = 50.0
    discrepancy_threshold: float = 0.05
    matched_actions: int = 10
    alpha_rate: float = 1e-3
    cloning_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        RobustConfig.__post_init__(self)
        require_positive(self, "kernel_width", "matched_actions", "alpha_rate")
        if not 0 <= self.discrepancy_threshold < math.inf:
            raise UsageError(
                f"discrepancy_threshold must be >= 0 and finite, but is "
                f"{self.discrepancy_threshold}"
            )
        if self.cloning_steps < 0:
            raise UsageError(f"cloning_steps must be >= 0, but is {self.cloning_steps}")


def discrepancy(one: Tensor, other: Tensor, *, kernel: Kernel, width: float) -> Tensor:
    """Maximum mean discrepancy of samples (B, M, da) and (B, M, da), shape (B,).

    With all samples z and weights w = 1/M of the one, -1/M of the other, its square is w' K w, the
    mean within either less twice the mean between them.
    """
    samples = torch.cat([one, other], dim=1)
    differences = samples.unsqueeze(2) - samples.unsqueeze(1)
    distances = (differences**2 if kernel == "gaussian" else differences.abs()).sum(-1)
    weights = one.new_full((one.shape[1] + other.shape[1],), 1 / one.shape[1])
    weights[one.shape[1] :] = -1 / other.shape[1]
    square = (-distances / (2 * width)).exp() @ weights @ weights
    return (square + 1e-6).sqrt()


class BEARLag(LagrangianLearner[BEARLagConfig]):
    """Bootstrapping error accumulation reduction with a PID Lagrangian (Kumar et al., 2019)."""

    name: ClassVar[str] = "bear-lag"
    Config = BEARLagConfig

    actor: SquashedGaussianPolicy

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        self.log_alpha = torch.zeros(())
        self.extraction = self.robust_extraction(
            self.config, self.actor, inner=self.actor.before_tanh
        )

    def build_actor(self) -> SquashedGaussianPolicy:
        """See `LagrangianLearner`."""
        return self.squashed_policy()

    def next_draws(self, observations: Tensor) -> Tensor:
        """See `LagrangianLearner`: the actions themselves."""
        target: SquashedGaussianPolicy = self.actor_target
        count = self.config.sampled_actions
        return target.squash(self.before_tanh(target, observations, count)).flatten(0, 1)

    def next_actions(self, observations: Tensor, draws: Tensor) -> Tensor:
        """See `LagrangianLearner`."""
        return draws

    def before_tanh(
        self, actor: SquashedGaussianPolicy, observations: Tensor, count: int
    ) -> Tensor:
        """Reparametrised samples of a policy before the tanh, (B, count, da), for (B, ds)."""
        location, std = (part.unsqueeze(1) for part in actor.before_tanh(observations))
        return location + std * self.noise(len(observations), count, self.dataset.action_size)

    def actor_losses(self, observations: Tensor) -> dict[str, Tensor]:
        """See `LagrangianLearner`; moves alpha. Robust on request."""
        config, alpha = self.config, self.log_alpha.exp()
        repeated = repeat_rows(observations, config.matched_actions)
        with torch.no_grad():
            latents = self.latents(len(repeated))
            wanted = torch.cat([*in_pieces(self.vae.decode, repeated, latents)])

        def discrepancy_and_judgement(shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = self.before_tanh(self.actor, shown, config.matched_actions)
            distance = discrepancy(
                wanted.view_as(x), x, kernel=config.kernel, width=config.kernel_width
            ).mean()
            return distance, *self.judged(observations, self.actor.squash(x[:, 0]))

        def weighed(distance: Tensor, value: Tensor, excess: Tensor) -> Tensor:
            loss = alpha * (distance - config.discrepancy_threshold) + self.multiplier * excess
            return loss - value if self.step >= config.cloning_steps else loss

        distance, value, excess = discrepancy_and_judgement(observations)
        self.multiplier = self.controller.control(excess)
        loss = weighed(distance, value, excess) + self.extraction.term(
            lambda shown: weighed(*discrepancy_and_judgement(shown)),
            observations,
            done=self.step / self.steps,
        )
        step = config.alpha_rate * alpha * (distance.detach() - config.discrepancy_threshold)
        self.log_alpha = (self.log_alpha + step).clamp(-5, 5)
        price = self.multiplier * excess
        return {"actor": loss, "discrepancy": distance, "price": price, "alpha": alpha}

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(
            self.actor, reward_critic=self.reward_critic, cost_critic=self.cost_critic
        )
