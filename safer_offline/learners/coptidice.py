"""COptiDICE: how often the best safe policy would visit each transition, then imitation by it.

Source: Lee et al., "COptiDICE: Offline Constrained Reinforcement Learning via Stationary
Distribution Correction Estimation", ICLR 2022. With e = r - lambda c + discount nu(s') - nu(s) and
the convex f of a divergence from the data,

    w(s, a) = max(0, f'^-1(e / alpha)),
    nu      minimises (1 - discount) E nu(s0) + E [w e - alpha f(w)],
    lambda  minimises lambda (limit - upper bound of E [w c]),

where the upper bound is the worst within a divergence of `cost_slack` of the data, found by chi and
tau. The policy is fitted to the data's actions with weights w.

OSRL's code, whose hyperparameters these are, does three things that the paper does not, beside
those of `constrained`: w is a distribution over steps, but its cost is compared with the limit of a
discounted sum, some hundred times as large, which never binds (`limit_of="sum"`); the policy is
fitted before the tanh to actions behind it (`likelihood="unsquashed"`); and actions and
observations are fitted with noise (`noise=0` for none).

Nothing in here is a critic of actions, which attacks ask for. `attack_critics` fits two to what the
data's episodes went on to earn and cost, for the policy file alone; the policy is the same without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.datasets.dataset.access import Columns, Transitions
from safer_offline.errors import UsageError
from safer_offline.learners.constrained import (
    ConstrainedConfig,
    ConstrainedLearner,
    adam,
    descend,
    detached,
    require_positive,
)
from safer_offline.learners.robust import RobustConfig
from safer_offline.policies.critics import CriticEnsemble, critic_loss, discounted_to_go
from safer_offline.policies.gaussian import gaussian_nll
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.trained import TrainedPolicy

LARGEST_UNIT = 0.999
"""Actions nearer to a bound than this, in half ranges, are fitted here: at it, x is infinite."""


@dataclass(frozen=True, kw_only=True)
class COptiDICEConfig(ConstrainedConfig, RobustConfig):
    """Settings of COptiDICE (Lee et al., ICLR 2022).

    Defaults are OSRL's, which trains for 300,000 steps.

    Attributes:
        critic_hidden_sizes: Hidden layers of nu and chi, and of critics for attacks.
        critic_members: Networks in nu and in chi, of which the least counts.
        critic_rate: Learning rate of nu and chi.
        scalar_rate: Learning rate of lambda and tau.
        divergence: f: `softchi`, `chi2` or `kl`.
        alpha: Weight of the divergence from the data.
        cost_slack: How far the data's distribution may be off, as a KL divergence, in the upper
            bound of cost; 0 takes the plain estimate.
        limit_of: Whether the limit is that of a mean `step`, or, as in OSRL, of the discounted
            `sum`.
        likelihood: Whether the policy is fitted to actions as it acts, or, as in OSRL, before its
            tanh.
        noise: Of observations and actions to be fitted, in deviations of the data.
        attack_critics: Whether critics are fitted for attacks to ask.
    """

    actor_rate: float = 1e-4
    critic_rate: float = 1e-4
    scalar_rate: float = 1e-4
    divergence: Literal["softchi", "chi2", "kl"] = "softchi"
    alpha: float = 0.5
    cost_slack: float = 0.01
    limit_of: Literal["step", "sum"] = "step"
    likelihood: Literal["squashed", "unsquashed"] = "squashed"
    noise: float = 0.1
    attack_critics: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        RobustConfig.__post_init__(self)
        require_positive(self, "scalar_rate", "alpha")
        for name in ("cost_slack", "noise"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise UsageError(f"{name} must be >= 0 and finite, but is {value}")


def _xlogx(x: Tensor) -> Tensor:
    return x * torch.log(x + 1e-10)


Function = Callable[[Tensor], Tensor]

DIVERGENCES: Mapping[str, tuple[Function, Function]] = {
    "chi2": (lambda x: 0.5 * (x - 1) ** 2, lambda y: y + 1),
    "softchi": (
        lambda x: torch.where(x < 1, _xlogx(x) - x + 1, 0.5 * (x - 1) ** 2),
        lambda y: torch.where(y < 0, y.clamp(max=0).exp(), y + 1),
    ),
    "kl": (_xlogx, lambda y: (y - 1).exp()),
}
"""f and the inverse of its derivative, by name."""


class COptiDICE(ConstrainedLearner[COptiDICEConfig]):
    """Constrained stationary distribution correction estimation (Lee et al., ICLR 2022)."""

    name: ClassVar[str] = "coptidice"
    Config = COptiDICEConfig

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config, dataset = self.config, self.dataset
        if config.limit_of == "step":
            self.limit *= 1 - config.discount
        self.initial_share = dataset.num_episodes / dataset.num_transitions
        self.actor = self.squashed_policy()
        self.nu, self.chi = self.state_value(), self.state_value()
        self.price, self.tau = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        values, scalars = [self.nu], [self.price]
        if config.cost_slack:
            values.append(self.chi)
            scalars.append(self.tau)
        self.value_optimizer = adam(*values, rate=config.critic_rate)
        self.scalar_optimizer = torch.optim.Adam(scalars, lr=config.scalar_rate, fused=True)
        self.actor_optimizer = adam(self.actor, rate=config.actor_rate)
        self.extraction = self.robust_extraction(config, self.actor, inner=self.actor.before_tanh)
        std = self.observation_std
        self.observation_noise = config.noise * torch.where(std.isfinite(), std, 0.0)
        actions = Standardizer(dataset.action_size)
        self.action_noise = config.noise * actions.fit(b.actions for b in dataset.blocks()).std
        self.reward_critic: CriticEnsemble | None = None
        self.cost_critic: CriticEnsemble | None = None
        if config.attack_critics:
            self.reward_critic = self.attack_critic("reward_to_go")
            self.cost_critic = self.attack_critic("cost_to_go")
            self.critic_optimizer = adam(self.reward_critic, self.cost_critic, rate=1e-3)

    def columns(self, transitions: Transitions) -> Mapping[str, Tensor]:
        """See `ConstrainedLearner`: also which states are the first of an episode."""
        initial = (transitions.terminals | transitions.timeouts).float().roll(1)
        columns = {**super().columns(transitions), "initial": initial}
        if self.config.attack_critics:
            for name in ("reward", "cost"):
                columns[f"{name}_to_go"] = discounted_to_go(
                    getattr(transitions, f"{name}s"),
                    transitions.terminals,
                    transitions.timeouts,
                    discount=self.config.discount,
                )
        return columns

    def attack_critic(self, column: str) -> CriticEnsemble:
        """A new critic to be fitted to a column."""
        critic = self.value_critic()
        critic.values.fit(block[column][:, None] for block in self.table.stream())
        return critic

    def learn(self) -> dict[str, Tensor]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        price = functional.softplus(self.price)
        losses, cost = self.value_losses(batch, price.detach())
        scalar_loss = price * (self.limit - cost)
        value_loss = losses["nu"]
        if config.cost_slack:
            value_loss = value_loss + losses["chi"]
            tau = functional.softplus(self.tau)
            scalar_loss = scalar_loss + tau * (config.cost_slack - losses["distance"])
        descend(self.value_optimizer, value_loss)
        descend(self.scalar_optimizer, scalar_loss)
        losses["actor"] = self.actor_loss(batch, price.detach())
        descend(self.actor_optimizer, losses["actor"])
        if self.reward_critic is not None and self.cost_critic is not None:
            asked = batch["observations"], batch["actions"]
            losses["reward_critic"] = critic_loss(self.reward_critic, *asked, batch["reward_to_go"])
            losses["cost_critic"] = critic_loss(self.cost_critic, *asked, batch["cost_to_go"])
            descend(self.critic_optimizer, losses["reward_critic"] + losses["cost_critic"])
        return detached({**losses, "price": price, "cost": cost})

    def advantage(self, batch: Columns, price: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nu of the states, e and w, each (B,)."""
        config = self.config
        nu, nu_next = self.nu(batch["observations"], batch["next_observations"])
        e = batch["rewards"] - price * batch["costs"]
        e = e + config.discount * batch["going_on"] * nu_next - nu
        _, inverse = DIVERGENCES[config.divergence]
        return nu, e, functional.relu(inverse(e / config.alpha))

    def value_losses(self, batch: Columns, price: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of nu and, if there is a slack, of chi; and the bound of cost, ()."""
        config = self.config
        f, _ = DIVERGENCES[config.divergence]
        nu, e, w = self.advantage(batch, price)
        first = (1 - config.discount) / self.initial_share * batch["initial"]
        losses = {"nu": (first * nu + w * e - config.alpha * f(w)).mean()}
        w, costs = w.detach(), batch["costs"]
        if not config.cost_slack:
            return losses, (w * costs).mean()
        chi, chi_next = self.chi(batch["observations"], batch["next_observations"])
        flow = costs + config.discount * batch["going_on"] * chi_next - chi
        ell = first * chi + w * flow
        log_weights = torch.log_softmax(
            ell / functional.softplus(self.tau.detach()), dim=0
        ) + math.log(len(ell))
        weights = log_weights.exp()
        losses["chi"] = (weights * ell).mean()
        with torch.no_grad():
            losses["distance"] = (weights * log_weights - weights + 1).mean()
            return losses, (weights * w * costs).mean()

    def actor_loss(self, batch: Columns, price: Tensor) -> Tensor:
        """Negative log-likelihood of the data's actions, weighted by w; robust on request."""
        with torch.no_grad():
            _, _, w = self.advantage(batch, price)
        observations, actions = batch["observations"], batch["actions"]
        observations = observations + self.observation_noise * self.noise(*observations.shape)
        actions = actions + self.action_noise * self.noise(*actions.shape)
        x = self.box.units(actions)
        if self.config.likelihood == "squashed":
            x = x.clamp(-LARGEST_UNIT, LARGEST_UNIT).atanh()

        def loss(shown: Tensor) -> Tensor:
            return (w * gaussian_nll(x, *self.actor.before_tanh(shown))).mean()

        done = self.step / self.steps
        return loss(observations) + self.extraction.term(loss, observations, done=done)

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(
            self.actor, reward_critic=self.reward_critic, cost_critic=self.cost_critic
        )
