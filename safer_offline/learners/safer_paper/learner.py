"""One update of SAFER as published: E-step, critics of its answer, M-step."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from safer_offline.attacks import GeneratorNoise, attack_budget, training_attacks
from safer_offline.datasets.dataset.access import Columns, Transitions
from safer_offline.errors import SaferOfflineError
from safer_offline.estep import ESTEP_SOLVERS, EStepResult, Multipliers
from safer_offline.learners.constrained import (
    ConstrainedLearner,
    adam,
    descend,
    detached,
    in_pieces,
    squared_errors,
    target_copy,
)
from safer_offline.learners.decoupled import (
    Moments,
    Pair,
    ascend,
    decoupled_kl,
    hold,
    solved_multipliers,
)
from safer_offline.learners.robust import Adversary, Fit, robust_loss
from safer_offline.learners.safer_paper.attacked import Victim
from safer_offline.learners.safer_paper.config import SAFERPaperConfig
from safer_offline.policies.behavior import BehaviorModel
from safer_offline.policies.critics import discounted_to_go
from safer_offline.policies.gaussian import GaussianPolicy, gaussian_nll
from safer_offline.policies.layers import polyak_update
from safer_offline.policies.trained import TrainedPolicy

OFTEN = 0.5
"""Share of E-steps without a feasible answer above which the user is told."""


class Candidates(NamedTuple):
    """Actions at K states that the data support, and what is known of them.

    Attributes:
        actions: Shape (N, K, da).
        value: Lower estimates, scaled like rewards, (N, K).
        cost: Upper estimates, (N, K).
        base_weights: The anchor w, (N, K); None is uniform.
    """

    actions: Tensor
    value: Tensor
    cost: Tensor
    base_weights: Tensor | None


class SAFERPaper(ConstrainedLearner[SAFERPaperConfig]):
    """Constrained variational policy optimisation under attack, offline (Liu et al., 2022, 2023).

    Attributes:
        multipliers: Of the last E-step, eta and lambda.
        penalties: Of the trust region, alpha and beta, where these are not solved; (2,).
        relaxed: How often the limit was out of reach in the last E-steps, from 0 to 1.
    """

    name: ClassVar[str] = "safer-paper"
    Config = SAFERPaperConfig

    def build(self) -> None:
        """See `SimpleLearner`."""
        super().build()
        config, dataset = self.config, self.dataset
        self.warmup = math.floor(config.warmup_share * self.steps)
        size = dataset.observation_size
        self.actor: GaussianPolicy = self.scaled(
            GaussianPolicy(size, copy.deepcopy(self.box), hidden_sizes=config.hidden_sizes)
        )
        self.behavior: BehaviorModel = self.scaled(
            BehaviorModel(
                size,
                self.box,
                components=config.mixture_components,
                hidden_sizes=config.hidden_sizes,
            )
        )
        self.reward_critic = self.value_critic(unit=config.reward_scale)
        self.cost_critic = self.value_critic()
        self.reward_target = target_copy(self.reward_critic)
        self.cost_target = target_copy(self.cost_critic)
        self.behavior_optimizer = adam(self.behavior, rate=config.behavior_rate)
        self.critic_optimizer = adam(self.reward_critic, self.cost_critic, rate=config.critic_rate)
        self.actor_optimizer = adam(self.actor, rate=config.actor_rate)
        self.multipliers = (0.0, 0.0)
        self.penalties = torch.zeros(2)
        self.relaxed = 0.0
        dearest = max(float(block["costs"].max()) for block in dataset.stream(("costs",)))
        self.largest_cost = dearest / (1 - config.discount)
        self._adversary = Adversary(
            config,
            budget=attack_budget(config.epsilon, self.observation_std, units=config.epsilon_units),
            noise=GeneratorNoise(self.generator),
            attacks=training_attacks(config.attacks, steps=config.attack_steps),
        )
        self._victim = Victim(self.actor, self.reward_critic, self.cost_critic)

    def columns(self, transitions: Transitions) -> Mapping[str, Tensor]:
        """See `ConstrainedLearner`: also what critics are fitted to at first."""
        columns = super().columns(transitions)
        if not self.config.warmup_share:
            return columns
        ends, cut = transitions.terminals, transitions.timeouts
        if self.config.timeouts_end:
            ends, cut = ends | cut, torch.zeros_like(cut)
        return {
            **columns,
            **{
                name: discounted_to_go(signal, ends, cut, discount=self.config.discount)
                for name, signal in (
                    ("reward_to_go", self.config.reward_scale * transitions.rewards),
                    ("cost_to_go", transitions.costs),
                )
            },
        }

    def learn(self) -> dict[str, Tensor | float]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        observations, actions = batch["observations"], batch["actions"]
        behavior = self.behavior.nll(observations, actions).mean()
        descend(self.behavior_optimizer, behavior)
        losses: dict[str, Tensor | float] = {"behavior": behavior.detach()}
        if self.step < self.warmup:
            losses |= self.critic_step(batch, batch["reward_to_go"], batch["cost_to_go"])
            policy = gaussian_nll(actions, *self.actor(observations)).mean()
            descend(self.actor_optimizer, policy)
            losses["policy"] = policy.detach()
        else:
            if self.step == self.warmup:
                self.reward_target.load_state_dict(self.reward_critic.state_dict())
                self.cost_target.load_state_dict(self.cost_critic.state_dict())
            candidates, answer = self.estep(observations, batch["next_observations"])
            weights, next_weights = answer.weights.chunk(2, dim=1)
            losses |= self.critic_step(batch, *self.targets(batch, candidates, next_weights))
            losses |= self.mstep(observations, candidates.actions[:, : len(actions)], weights)
            losses |= self.report(answer)
        polyak_update(self.reward_target, self.reward_critic, config.target_rate)
        polyak_update(self.cost_target, self.cost_critic, config.target_rate)
        return losses

    # ---------------------------------------------------------------- E-step

    def estep(
        self, observations: Tensor, next_observations: Tensor
    ) -> tuple[Candidates, EStepResult]:
        """How much each candidate weighs at (B, ds) states and, in one problem, at the next ones.

        Returns:
            Candidates at the states, then at the next ones, K = 2 B, and the solution for them.
        """
        config = self.config
        candidates = self.candidates(torch.cat([observations, next_observations]))
        eta, lam = self.multipliers
        answer = ESTEP_SOLVERS[config.estep_solver](
            candidates.value,
            candidates.cost,
            cost_limit=self.limit,
            kl_limit=config.kl_limit,
            base_weights=candidates.base_weights,
            warm_start=Multipliers(eta, lam) if eta else None,
        )
        self.multipliers = (answer.eta, answer.lam)
        return candidates, answer

    @torch.no_grad()
    def candidates(self, observations: Tensor) -> Candidates:
        """Actions of the behaviour at (K, ds) observations.

        Raises:
            SaferOfflineError: If the critics have diverged.
        """
        config, states = self.config, len(observations)
        actions = self.behavior.sample(
            observations, config.sampled_actions, generator=self.generator
        )
        repeated = observations.repeat(config.sampled_actions, 1)
        estimates = torch.cat([*in_pieces(self.estimates, repeated, actions.flatten(0, 1))], dim=1)
        for name, each in zip(("reward", "cost"), estimates, strict=True):
            if not bool(each.isfinite().all()):
                raise SaferOfflineError(
                    f"the loss '{name}_critic' became infinite or NaN before step {self.step}; "
                    "lower critic_rate, or check the scale of the dataset with `safer-offline data "
                    "info`"
                )
        value, cost = estimates.view(2, -1, states)
        base_weights = None
        if config.anchor == "policy":
            log_policy = -gaussian_nll(actions, *self.actor(observations))
            log_behavior = -self.behavior.nll(repeated, actions.flatten(0, 1)).view(-1, states)
            base_weights = (log_policy - log_behavior).double().softmax(0)
        return Candidates(actions, value, cost, base_weights)

    def estimates(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Lower values and upper costs of (n, ds) and (n, da), shape (2, n)."""
        value = self.reward_target.standardized(observations, actions)
        cost = self.cost_target.standardized(observations, actions)
        return torch.stack(
            [
                value.mean(0) - self.config.reward_deviations * value.std(0, correction=0),
                cost.mean(0) + self.config.cost_deviations * cost.std(0, correction=0),
            ]
        )

    def report(self, answer: EStepResult) -> dict[str, Tensor | float]:
        """What to log of an E-step; says at the end if the limit was out of reach too often."""
        relaxed = float(answer.status == "relaxed")
        self.relaxed += (relaxed - self.relaxed) / min(self.step - self.warmup + 1, 100)
        if self.step == self.steps - 1 and self.relaxed > OFTEN:
            warnings.warn(
                f"in {self.relaxed:.0%} of the last E-steps no weighting of the candidates within "
                f"kl_limit={self.config.kl_limit:g} kept the limit on the discounted cost, "
                f"{self.limit:.3g} (--cost-limit {self.config.cost_limit:g}); the last one allowed "
                f"{answer.cost_limit:.3g}, close to the least in reach. Raise --cost-limit, or "
                "--set kl_limit=...",
                stacklevel=2,
            )
        return {
            "eta": answer.eta,
            "lambda": answer.lam,
            "relaxed": relaxed,
            "allowed_cost": answer.cost_limit,
            "effective_candidates": (1 / (answer.weights**2).sum(0)).mean(),
        }

    # ---------------------------------------------------------------- critics

    @torch.no_grad()
    def targets(
        self, batch: Columns, candidates: Candidates, next_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Targets of reward and cost under q, each (B,).

        Args:
            batch: Of B transitions.
            candidates: At 2 B states, of which the last B are the next ones.
            next_weights: q there, shape (N, B).
        """
        going_on = batch["going_on"]
        value, cost = (
            (next_weights * each[:, len(going_on) :]).sum(0)
            for each in (candidates.value, candidates.cost)
        )
        cost_to_go = going_on * cost if self.config.cost_ends else cost
        return (
            batch["rewards"] + self.config.discount * going_on * value,
            (batch["costs"] + self.config.discount * cost_to_go).clamp(0, self.largest_cost),
        )

    def critic_step(
        self, batch: Columns, reward_target: Tensor, cost_target: Tensor
    ) -> dict[str, Tensor]:
        """Fit both critics to targets (B,)."""
        asked = batch["observations"], batch["actions"]
        losses = {
            "reward_critic": squared_errors(self.reward_critic.standardized(*asked), reward_target),
            "cost_critic": squared_errors(self.cost_critic.standardized(*asked), cost_target),
        }
        descend(self.critic_optimizer, losses["reward_critic"] + losses["cost_critic"])
        return detached(losses)

    # ---------------------------------------------------------------- M-step

    def mstep(
        self, observations: Tensor, candidates: Tensor, weights: Tensor
    ) -> dict[str, Tensor | float]:
        """Fit the policy to q within the trust region.

        Args:
            observations: States, (B, ds).
            candidates: Actions there, (N, B, da).
            weights: q, (N, B).
        """
        config, done = self.config, self.step / self.steps
        parameters = list(self.actor.parameters())
        start = [parameter.detach().clone() for parameter in parameters]
        with torch.no_grad():
            moments = Moments.of(candidates, weights, self.actor(observations))
        attacked = observations
        if config.adversarial_weight:
            attacked = self._adversary.attack(self._victim, observations, done=done)
        limits = Pair(
            *torch.tensor([config.mean_kl_limit, config.deviation_kl_limit], device=self.device)
        )
        held = config.trust_region == "held"
        multipliers = solved_multipliers(moments, limits)

        @torch.no_grad()
        def divergences() -> Pair:
            return Pair(*(each.mean() for each in moments.divergences(*self.actor(observations))))

        for _ in range(config.mstep_iterations):
            if not held:
                multipliers = self.ascended(divergences(), limits)
            loss, losses = self.mstep_loss(observations, attacked, moments, multipliers)
            descend(self.actor_optimizer, loss)
            # At once, for the next gradient is to be one of the likelihood, not of an overshoot.
            found = hold(parameters, start, divergences, limits) if held else divergences()
        return {
            **detached({"policy": loss, **losses}),
            "mean_kl": found.mean,
            "deviation_kl": found.deviation,
            "alpha": multipliers.mean,
            "beta": multipliers.deviation,
            "epsilon_ramp": self._adversary.ramp(done),
        }

    def mstep_loss(
        self, observations: Tensor, attacked: Tensor, moments: Moments, multipliers: Pair
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The Lagrangian of the M-step; its parts by name.

        The trust region is one at true observations. At attacked ones its price would outweigh the
        rest: what the policy does there may be far from all that it does at true ones.
        """
        config = self.config
        fit = Fit(
            name="nll",
            loss=lambda _, mean, std: moments.nll(mean, std),
            divergence=lambda *both: torch.stack(decoupled_kl(*both)).sum(0),
        )
        mean, std = self.actor(observations)
        found = moments.divergences(mean, std)
        price = multipliers.mean * found.mean + multipliers.deviation * found.deviation
        if not config.adversarial_weight:
            nll = moments.nll(mean, std)
            return (nll + price).mean(), {"nll": nll.mean()}
        loss, losses = robust_loss(
            self.actor,
            observations,
            attacked,
            moments.mean,
            observations.new_ones(len(observations)),
            adversarial_weight=config.adversarial_weight,
            robustness=config.robustness,
            fit=fit,
        )
        return loss + price.mean(), losses

    def ascended(self, found: Pair, limits: Pair) -> Pair:
        """Move the multipliers as the authors' code does, and return them.

        There the likelihood is averaged over candidates, though weights sum to 1; here it is
        summed, which takes as many times larger ones.
        """
        config = self.config
        self.penalties = ascend(
            self.penalties,
            found,
            limits,
            steps=config.multiplier_steps,
            caps=config.multiplier_caps,
        )
        return Pair(*(config.sampled_actions * self.penalties))

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(
            self.actor, reward_critic=self.reward_critic, cost_critic=self.cost_critic
        )
