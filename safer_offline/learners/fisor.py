"""FISOR: which states can stay without violation, the best reward there, and the way back.

Source: Zheng et al., "Safe Offline Reinforcement Learning with Feasibility-Guided Diffusion Model",
ICLR 2024. A step violates by h, which is above 0 if it costs anything and -1 if not, and

    Qh(s, a) = (1 - discount) h + discount max(h, Vh(s'))

is the largest violation that is to come. Vh is nearly the least Qh of the data's actions, by
reversed expectile regression (see `expectile`); a state is feasible if Vh(s) <= 0. Values of reward
are those of implicit Q-learning. The policy is fitted to the data's actions with weights

    exp(beta (Q - V))          where s is feasible and Qh(s, a) <= 0,
    0                          where s is feasible and Qh(s, a) > 0,
    exp(beta_h (Vh - Qh))      where s is not feasible,

as a diffusion model: a small network that takes noise out of actions, which is asked for several,
and the one of the least Qh is taken (see `policies.diffusion`). There is no limit on the cost: no
step is to cost anything.

Settings are those of the authors' code, but for what `constrained` names, and for initial weights,
which are PyTorch's. The policy takes nearly all of the time, and gradient attacks on it ask for all
candidates at each of their steps: on a laptop, `hidden_sizes=64,64,64 batch_size=512
actor_updates=1` trains about ten times as fast, and is attacked eight times as fast.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import Columns
from safer_offline.errors import UsageError
from safer_offline.learners.constrained import (
    adam,
    descend,
    detached,
    require_positive,
    target_copy,
)
from safer_offline.learners.expectile import (
    ExpectileConfig,
    ExpectileLearner,
    exponential_weights,
)
from safer_offline.learners.robust import RobustConfig
from safer_offline.policies.diffusion import Denoiser, DiffusionPolicy
from safer_offline.policies.gaussian import GaussianPolicy, gaussian_nll
from safer_offline.policies.layers import polyak_update
from safer_offline.policies.trained import TrainedPolicy


@dataclass(frozen=True, kw_only=True)
class FISORConfig(ExpectileConfig, RobustConfig):
    """Settings of FISOR (Zheng et al., ICLR 2024).

    Defaults are the authors', who train for 1,000,000 steps of two policy updates each. On a
    laptop, take hidden_sizes=64,64,64 batch_size=512 actor_updates=1.

    Attributes:
        cost_limit: Cost of an episode that evaluations judge by; it plays no part in learning
            unless `violation_of=sum`.
        violation_of: What is to come: the `largest` violation, which no feasible state has, or, as
            in the authors' ablation, the `sum` of costs, feasible within the discounted limit.
        violation: What h is where a step costs anything; elsewhere it is -1.
        actor: `diffusion`, or `gaussian` for a policy without choice among candidates, which alone
            can be made robust.
        hidden_sizes: Of the policy: widths of the denoiser's residual blocks, or hidden layers of
            the Gaussian.
        dropout: Share of what comes into a residual block that is left out while learning.
        diffusion_steps: In how many steps noise is taken out of an action.
        candidates: Among how many actions the trained policy chooses.
        normalize_returns: Whether rewards are scaled so that returns of the data differ by at
            most the length of an episode, before `reward_scale`.
        batch_size: Rows of a batch; each policy update has an equal part of them.
        actor_updates: Policy updates in a step.
        critic_batch_size: Rows of the batch, the first ones, that values learn from.
        actor_target_rate: Share of the new weights that the acting policy takes over in each
            update.
    """

    reward_scale: float = 1.0
    hidden_sizes: tuple[int, ...] = (256, 256, 256)
    batch_size: int = 2048
    expectile: float = 0.9
    cost_expectile: float = 0.9
    cost_beta: float = 5.0
    cost_weight_cap: float = 150.0
    actor_decay_steps: int | None = 1_500_000
    violation_of: Literal["largest", "sum"] = "largest"
    violation: float = 25.0
    actor: Literal["diffusion", "gaussian"] = "diffusion"
    dropout: float = 0.1
    diffusion_steps: int = 5
    candidates: int = 16
    normalize_returns: bool = True
    actor_updates: int = 2
    critic_batch_size: int = 256
    actor_target_rate: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        RobustConfig.__post_init__(self)
        if self.adversarial_weight and self.actor == "diffusion":
            raise UsageError(
                "a diffusion policy cannot be fitted at attacked observations: with --robust, say "
                "--set actor=gaussian, too"
            )
        require_positive(
            self, "violation", "diffusion_steps", "candidates", "actor_updates", "critic_batch_size"
        )
        require_positive(self, "actor_target_rate")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be >= 0 and below 1, but is {self.dropout}")
        if self.actor_target_rate > 1:
            raise UsageError(f"actor_target_rate must be at most 1, not {self.actor_target_rate}")
        if self.batch_size < self.actor_updates:
            raise UsageError(
                f"batch_size must be at least actor_updates, but is {self.batch_size}, which is "
                f"below {self.actor_updates}"
            )
        if not self.hidden_sizes:
            raise UsageError("hidden_sizes must name at least one width")


def largest_violation(
    violations: Tensor, following: Tensor, going_on: Tensor, *, discount: float
) -> Tensor:
    """Targets of Qh, (B,): what a step violates by, and the largest violation after it.

    Args:
        violations: h, (B,).
        following: Vh of the next states, (B,).
        going_on: 0 where an episode ended with the step, or else 1, (B,).
        discount: Below 1; at an end, h counts alone.
    """
    worst = torch.maximum(violations, following)
    return torch.lerp(violations, worst, discount * going_on)


class FISOR(ExpectileLearner[FISORConfig]):
    """Feasibility-guided safe offline RL (Zheng et al., ICLR 2024)."""

    name: ClassVar[str] = "fisor"
    Config = FISORConfig

    actor: Denoiser | GaussianPolicy

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config, dataset = self.config, self.dataset
        if config.actor == "gaussian":
            self.actor = self.scaled(
                GaussianPolicy(
                    dataset.observation_size,
                    copy.deepcopy(self.box),
                    hidden_sizes=config.hidden_sizes,
                )
            )
            self.extraction = self.robust_extraction(config, self.actor)
        else:
            self.actor = self.scaled(
                Denoiser(
                    dataset.observation_size,
                    dataset.action_size,
                    steps=config.diffusion_steps,
                    hidden_sizes=config.hidden_sizes,
                )
            )
        self.actor_target = target_copy(self.actor)
        self.actor_optimizer = adam(self.actor, rate=config.actor_rate)
        self.act_latents = self.noise(
            config.candidates, config.diffusion_steps, dataset.action_size
        )
        self.bound = self.limit if config.violation_of == "sum" else 0.0

    def reward_unit(self) -> float:
        """See `ConstrainedLearner`; returns are normalised on request."""
        returns = self.dataset.episodes["return"]
        spread = float(returns.max() - returns.min())
        unit = self.config.reward_scale
        if self.config.normalize_returns and spread > 0:
            unit *= self.episode_length() / spread
        return unit

    def learn(self) -> dict[str, Tensor]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        parts = {name: column.tensor_split(config.actor_updates) for name, column in batch.items()}
        for update in range(config.actor_updates):
            actor = self.actor_loss({name: part[update] for name, part in parts.items()})
            self.set_actor_rate(self.actor_optimizer, step=self.step)
            descend(self.actor_optimizer, actor)
            polyak_update(self.actor_target, self.actor, config.actor_target_rate)
        batch = {name: column[: config.critic_batch_size] for name, column in batch.items()}
        values = self.fit_values(
            {"reward": self.reward.advantages(batch), "cost": self.cost.advantages(batch)}
        )
        reward_target, cost_target = self.targets(batch)
        critics = self.fit_critics(batch, reward_target=reward_target, cost_target=cost_target)
        return detached({**values, **critics, "actor": actor})

    @torch.no_grad()
    def targets(self, batch: Columns) -> tuple[Tensor, Tensor]:
        """Targets of reward and of what is to be avoided, each (B,)."""
        config, going_on, costs = self.config, batch["going_on"], batch["costs"]
        after = batch["next_observations"]
        value, violation = self.reward.of_states(after), self.cost.of_states(after)
        reward_target = batch["rewards"] + config.discount * going_on * value
        if config.violation_of == "sum":
            return reward_target, costs + config.discount * going_on * violation
        h = torch.where(costs > 0, config.violation, -1.0)
        return reward_target, largest_violation(h, violation, going_on, discount=config.discount)

    @torch.no_grad()
    def weights(self, batch: Columns) -> Tensor:
        """How much the policy shall imitate each action of a batch, (B,)."""
        config = self.config
        violation = self.cost.judge(batch["observations"], batch["actions"])
        least = self.cost.of_states(batch["observations"])
        earning = exponential_weights(
            self.reward.advantages(batch), beta=config.reward_beta, cap=config.weight_cap
        )
        returning = exponential_weights(
            least - violation, beta=config.cost_beta, cap=config.cost_weight_cap
        )
        return torch.where(least > self.bound, returning, earning * (violation <= self.bound))

    def actor_loss(self, batch: Columns) -> Tensor:
        """Weighted error of the noise that is found, or likelihood of actions; a mean over rows."""
        weights, actions, actor = self.weights(batch), batch["actions"], self.actor
        if isinstance(actor, GaussianPolicy):

            def loss(shown: Tensor) -> Tensor:
                return (weights * gaussian_nll(actions, *actor(shown))).mean()

            observations, done = batch["observations"], self.step / self.steps
            return loss(observations) + self.extraction.term(loss, observations, done=done)
        times = self.times(len(actions))
        noise = self.noise(*actions.shape)
        noisy = actor.add_noise(self.box.units(actions), noise, times)
        found: Tensor = actor(batch["observations"], noisy, times, dropout=self.drop)
        return (weights * ((found - noise) ** 2).sum(-1)).mean()

    def times(self, rows: int) -> Tensor:
        """Random steps of the diffusion, (rows,)."""
        return torch.randint(self.config.diffusion_steps, (rows,), generator=self.generator).to(
            self.device
        )

    def drop(self, hidden: Tensor) -> Tensor:
        """A random part of it left out, the rest scaled up."""
        if not (share := self.config.dropout):
            return hidden
        kept = torch.empty_like(hidden, device="cpu")
        kept.bernoulli_(1 - share, generator=self.generator)
        return hidden.mul(kept.to(self.device)).div(1 - share)

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        config, dataset, network = self.config, self.dataset, self.actor_target
        critics = {"reward_critic": self.reward.critic, "cost_critic": self.cost.critic}
        if isinstance(network, GaussianPolicy):
            return self.trained_policy(network, **critics)
        actor: DiffusionPolicy = self.scaled(
            DiffusionPolicy(
                dataset.observation_size,
                copy.deepcopy(self.box),
                hidden_sizes=config.hidden_sizes,
                candidates=config.candidates,
                steps=config.diffusion_steps,
                critic_hidden_sizes=config.critic_hidden_sizes,
                critic_members=config.critic_members,
            )
        )
        actor.denoiser.load_state_dict(network.state_dict())
        actor.violation_critic.load_state_dict(self.cost.target.state_dict())
        actor.latents.copy_(self.act_latents)
        return self.trained_policy(actor, **critics)
