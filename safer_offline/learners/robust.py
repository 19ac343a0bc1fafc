"""Robustness that any fitting of a policy can be given: SAFER's M-step, cloning, CDT, yours.

With target actions a, weights w and an attacked observation s_hat of the same state s,

    L = mean w [ l(a, pi(s)) + rho r(a, pi(s), pi(s_hat)) ]

where l is how the policy is fitted, such as -log pi(a | s), and r is one of

* `attack`: l(a, pi(s_hat)), s_hat found by an adversary. What is right at s must also be done when
  the adversary shows s_hat: the adversarial training step of SAFER's M-step (Liu et al., ICML
  2023).
* `noise`: the same with random s_hat, which is augmentation by noise.
* `kl`: KL(pi(s) || pi(s_hat)) at the adversary's s_hat: the policy must be smooth, whatever it does
  (Zhang et al., "Robust Deep Reinforcement Learning against Adversarial Perturbations on State
  Observations", NeurIPS 2020). Where l knows no deviation, the squared distance of the means.

A policy that critics improve has no target actions: l is what they say of its action, and what it
does at s_hat is judged at the true s (`RobustExtraction`).

Only the observation is attacked, never a real agent, and the action is one that was right at the
true s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from safer_offline.attacks import (
    MAD,
    Attack,
    AttackTarget,
    GeneratorNoise,
    NoiseSource,
    Uniform,
    attack_budget,
)
from safer_offline.attacks.base import rows_of
from safer_offline.errors import UsageError
from safer_offline.policies.gaussian import gaussian_kl, gaussian_nll

Robustness = Literal["attack", "noise", "kl"]
Distribution = tuple[Tensor, Tensor]
"""Mean and standard deviation of actions, each (B, da)."""


@dataclass(frozen=True, kw_only=True)
class RobustConfig:
    """How a policy is made robust; part of the settings of every algorithm that can be.

    Attributes:
        robustness: `attack`: do what is right also at attacked observations. `noise`: at noisy
            ones. `kl`: stay close, at attacked ones, to what is done at true ones.
        adversarial_weight: Weight of that in the loss, against 1 for true observations; 0 is none.
        epsilon: Budget of the attacks: one number, or one an observation coordinate.
        epsilon_units: What `epsilon` counts: raw observation units or the data's deviations.
        attack_steps: Gradient steps of each attack while learning.
        ramp_share: Part of the training over which epsilon grows from 0 to its full size.
    """

    robustness: Robustness = "attack"
    adversarial_weight: float = 0.0
    epsilon: float | tuple[float, ...] = 0.05
    epsilon_units: Literal["raw", "std"] = "raw"
    attack_steps: int = 4
    ramp_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.adversarial_weight < math.inf:
            raise UsageError(
                f"adversarial_weight must be >= 0 and finite, but is {self.adversarial_weight}"
            )
        if self.robustness not in ("attack", "noise", "kl"):
            raise UsageError(f"robustness must be attack, noise or kl, not {self.robustness}")
        if not 0 <= self.ramp_share <= 1:
            raise UsageError(f"ramp_share must be between 0 and 1, but is {self.ramp_share}")
        if self.attack_steps < 1:
            raise UsageError(f"attack_steps must be >= 1, but is {self.attack_steps}")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a policy is fitted to actions, and what counts as a difference between two policies.

    Attributes:
        name: What the loss is called.
        loss: Of actions (B, da) under mean and deviation, each (B, da), shape (B,).
        divergence: Between two distributions of actions, shape (B,).
    """

    name: str
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    divergence: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def squared_error(actions: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(a - mean)^2, averaged over the action's coordinates, shape (B,); the deviation is free."""
    return ((actions - mean) ** 2).mean(-1)


def squared_distance(mean: Tensor, std: Tensor, other: Tensor, other_std: Tensor) -> Tensor:
    """(mean - other)^2, averaged over the action's coordinates, shape (B,)."""
    return ((mean - other) ** 2).mean(-1)


LIKELIHOOD = Fit(name="nll", loss=gaussian_nll, divergence=gaussian_kl)
SQUARED_ERROR = Fit(name="mse", loss=squared_error, divergence=squared_distance)
FITS = {fit.name: fit for fit in (LIKELIHOOD, SQUARED_ERROR)}


class Adversary:
    """Who shows a policy other observations while it learns, and by how much.

    Args:
        config: Settings.
        budget: Of the attacks at the end of the ramp, raw units, shape (ds,).
        noise: Random numbers.
        attacks: What to attack with, each row by one of them; `robustness="noise"` has its own.
            None takes MAD, which needs no critics.
    """

    def __init__(
        self,
        config: RobustConfig,
        *,
        budget: Tensor,
        noise: NoiseSource,
        attacks: Sequence[Attack] | None = None,
    ) -> None:
        self._config, self._budget, self._noise = config, budget, noise
        if config.robustness == "noise":
            attacks = (Uniform(),)
        self._attacks = tuple(attacks or (MAD(steps=config.attack_steps, restarts=1),))

    def loss(
        self,
        policy: Callable[[Tensor], Distribution],
        victim: AttackTarget,
        observations: Tensor,
        actions: Tensor,
        weights: Tensor,
        *,
        done: float,
        fit: Fit = LIKELIHOOD,
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """`robust_loss` at observations that this adversary shows; without one if its weight is 0.

        Args:
            policy: The policy to fit.
            victim: Policy and critics as they are now.
            observations: True observations, shape (B, ds).
            actions: Target actions, shape (B, da).
            weights: Weight of each row, shape (B,).
            done: Share of the training that is done.
            fit: How the policy is fitted.
        """
        config = self._config
        if not config.adversarial_weight:
            plain = (weights * fit.loss(actions, *policy(observations))).mean()
            return plain, {fit.name: plain.detach()}
        loss, parts = robust_loss(
            policy,
            observations,
            self.attack(victim, observations, done=done),
            actions,
            weights,
            adversarial_weight=config.adversarial_weight,
            robustness=config.robustness,
            fit=fit,
        )
        return loss, {**parts, "epsilon_ramp": self.ramp(done)}

    def ramp(self, done: float) -> float:
        """Share of the budget in use when this share of the training is done."""
        share = self._config.ramp_share
        return min(1.0, done / share) if share else 1.0

    def attack(self, victim: AttackTarget, observations: Tensor, *, done: float) -> Tensor:
        """What is shown instead of true observations (B, ds); same shape, no gradient.

        Args:
            victim: Policy and critics as they are now.
            observations: True ones, raw units.
            done: Share of the training that is done.
        """
        return mixed_attack(
            self._attacks,
            victim,
            observations,
            epsilon=self.ramp(done) * self._budget,
            noise=self._noise,
        )


def robust_term(
    robustness: Robustness,
    actions: Tensor,
    *,
    clean: Distribution,
    attacked: Distribution,
    fit: Fit = LIKELIHOOD,
) -> Tensor:
    """R of the formula above, shape (B,).

    Args:
        robustness: Which of the three.
        actions: Target actions, shape (B, da).
        clean: The policy at true observations.
        attacked: The policy at attacked ones.
        fit: How the policy is fitted.
    """
    if robustness == "kl":
        return fit.divergence(*clean, *attacked)
    return fit.loss(actions, *attacked)


def robust_loss(
    policy: Callable[[Tensor], Distribution],
    observations: Tensor,
    attacked: Tensor,
    actions: Tensor,
    weights: Tensor,
    *,
    adversarial_weight: float,
    robustness: Robustness = "attack",
    fit: Fit = LIKELIHOOD,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted loss of target actions, at true and at attacked observations.

    Args:
        policy: The policy to fit.
        observations: True observations s, shape (B, ds).
        attacked: What an adversary shows instead, shape (B, ds).
        actions: Target actions, shape (B, da).
        weights: Weight of each row, shape (B,).
        adversarial_weight: rho.
        robustness: What is asked at attacked observations.
        fit: How the policy is fitted.

    Returns:
        The loss, and its two parts by name, such as `nll` and `nll_attacked`.
    """
    mean, std = policy(torch.cat([observations, attacked]))
    (true_mean, false_mean), (true_std, false_std) = mean.chunk(2), std.chunk(2)
    true, false = (true_mean, true_std), (false_mean, false_std)
    term = robust_term(robustness, actions, clean=true, attacked=false, fit=fit)
    losses = torch.stack([fit.loss(actions, *true), term])
    clean, adversarial = (weights * losses).mean(dim=1)
    return clean + adversarial_weight * adversarial, {
        fit.name: clean.detach(),
        f"{fit.name}_attacked": adversarial.detach(),
    }


def mixed_attack(
    attacks: Sequence[Attack],
    target: AttackTarget,
    observations: Tensor,
    *,
    epsilon: Tensor,
    noise: NoiseSource,
) -> Tensor:
    """Attack equal slices of a batch by one attack each, so that every step meets all of them.

    Args:
        attacks: The attacks; row i meets attack i modulo their number.
        target: Policy and critics as they are now.
        observations: True observations, shape (B, ds).
        epsilon: Budget, raw units, shape (ds,).
        noise: Random numbers.

    Returns:
        Attacked observations, shape (B, ds).
    """
    attacked = observations.clone()
    for number, attack in enumerate(attacks):
        rows = slice(number, None, len(attacks))
        attacked[rows] = attack.perturb(
            rows_of(target, rows), observations[rows], epsilon=epsilon, noise=noise
        )
    return attacked


class RobustExtraction:
    """The adversarial part of the loss of a policy that is improved by critics or by weights.

    Its adversary is MAD, whatever critics there are, so that all baselines meet the same one.

    Args:
        config: Settings.
        policy: Mean and deviation of what is done at raw observations.
        inner: The same before what bounds actions, such as a tanh, whose divergence `kl` asks for:
            where that is one-to-one, it changes no divergence. None takes `policy`.
        observation_std: Deviations of the data's observations, shape (ds,).
        generator: Of random numbers.
    """

    def __init__(
        self,
        config: RobustConfig,
        policy: Callable[[Tensor], Distribution],
        *,
        inner: Callable[[Tensor], Distribution] | None = None,
        observation_std: Tensor,
        generator: torch.Generator,
    ) -> None:
        budget = attack_budget(config.epsilon, observation_std, units=config.epsilon_units)
        self._config, self._victim, self._inner = config, ActorTarget(policy), inner or policy
        self._adversary = Adversary(config, budget=budget, noise=GeneratorNoise(generator))

    def term(
        self, loss_when_shown: Callable[[Tensor], Tensor], observations: Tensor, *, done: float
    ) -> Tensor | float:
        """What attacked observations add to the loss, weighted, (); nothing if the weight is 0.

        Args:
            loss_when_shown: The loss, (), of what the policy does if it is shown (B, ds).
            observations: True ones, raw, shape (B, ds).
            done: Share of the training that is done.
        """
        config = self._config
        if not config.adversarial_weight:
            return 0.0
        shown = self._adversary.attack(self._victim, observations, done=done)
        if config.robustness == "kl":
            divergence = gaussian_kl(*self._inner(observations), *self._inner(shown))
            return config.adversarial_weight * divergence.mean()
        return config.adversarial_weight * loss_when_shown(shown)


class ActorTarget:
    """A policy network as attacks see it, without critics.

    Args:
        network: Mean and deviation of the actions at raw observations.
    """

    def __init__(self, network: Callable[[Tensor], Distribution]) -> None:
        self._network = network

    def action_distribution(self, observations: Tensor) -> Distribution:
        """See `AttackTarget`."""
        return self._network(observations)

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """There is none."""
        raise UsageError("this policy has no reward critic")

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """There is none."""
        raise UsageError("this policy has no cost critic")
