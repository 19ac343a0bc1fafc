"""Offline SAFER: a constrained E-step on a fixed dataset, then a robust M-step.

Source: Liu et al., "Towards Robust and Safe Reinforcement Learning with Benign Off-policy Data",
ICML 2023. What is ours is how its two stages become purely offline:

1. *Estimate.* Critics of reward and cost, a model of the behaviour and a model of cost are fitted
   to the data by supervised learning. No learned action enters a target.
2. *E-step.* The same convex problem is solved twice. Over whole episodes, with their observed
   returns and the costs they would have had within the attacker's reach (`margins`): this says
   which paths to follow. And over candidate actions at states drawn from all of the data, with
   the critics: this says how to recover, at states that the chosen episodes never visit but an
   attack leads to. Both multipliers are solved, not tuned.
3. *M-step.* The policy is fitted to both answers, at true and at attacked observations.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from safer_offline.attacks import MAD, GeneratorNoise, MaxCost, MaxReward, attack_budget
from safer_offline.datasets.dataset.access import Table, Transitions, TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import UsageError
from safer_offline.estep import EStepResult
from safer_offline.learners.margins import CostModel, cost_model_loss
from safer_offline.learners.mstep import mixed_attack, robust_mstep_loss
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.offline_estep import (
    EStepAnswer,
    candidate_estep,
    draw_candidates,
    episode_estep,
    information,
)
from safer_offline.policies.behavior import BehaviorModel
from safer_offline.policies.critics import CriticEnsemble, critic_loss, discounted_to_go
from safer_offline.policies.gaussian import ActionBox, GaussianPolicy
from safer_offline.policies.layers import Standardizer, gradient_step, polyak_update
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy


class SAFER:
    """Offline SAFER on one dataset.

    Args:
        config: Settings.
        dataset: What to learn from.
        steps: Updates of a complete training, stages 1 and 3 together.
        seed: Same seed, same machine: same policy, bit for bit.

    Raises:
        UsageError: If a setting does not fit the dataset.
    """

    name: ClassVar[str] = "safer"
    Config: ClassVar[type[SAFERConfig]] = SAFERConfig

    def __init__(
        self, config: SAFERConfig, dataset: TransitionSource, *, steps: int, seed: int
    ) -> None:
        _require_steps(steps)
        self.config = config
        self.steps = steps
        self.seed = seed
        self.step = 0
        self.estimation_steps = max(1, min(steps - 1, round(config.estimation_share * steps)))
        self._dataset = dataset
        self._generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self._build_networks()
        self._epsilon = attack_budget(
            config.epsilon, self.actor.observations.std, units=config.epsilon_units
        )
        self._victim = self._bundle(self.actor)
        attack = {"steps": config.attack_steps, "restarts": 1}
        self._attacks = (MaxCost(**attack), MaxReward(**attack), MAD(**attack))
        self._estimation = TransitionSampler(
            self._estimation_table(), batch_size=config.batch_size, seed=seed
        )
        self._answer: EStepAnswer | None = None
        self._chosen: TransitionSampler
        self._recovery: TransitionSampler

    def update(self) -> dict[str, Tensor | float]:
        """One update of the stage that is due; the E-step is solved when stage 3 begins."""
        if self.step < self.estimation_steps:
            losses = self._estimate()
        else:
            report: dict[str, Tensor | float] = {}
            if self._answer is None:
                self._answer, report = self._estep()
                self._begin_imitation(self._answer)
            losses = self._imitate() | report
        self.step += 1
        return losses

    # ---------------------------------------------------------------- stage 1: estimate

    def _build_networks(self) -> None:
        config, data = self.config, self._dataset
        box = ActionBox(data.action_low, data.action_high)
        ds, da, hidden = data.observation_size, data.action_size, config.hidden_sizes

        def critic() -> CriticEnsemble:
            return CriticEnsemble(ds, da, members=config.critic_members, hidden_sizes=hidden)

        self.reward_critic, self.cost_critic = critic(), critic()
        self.behavior = BehaviorModel(
            ds, box, components=config.mixture_components, hidden_sizes=hidden
        )
        self.cost_model = CostModel(ds, hidden_sizes=hidden)
        self.actor = GaussianPolicy(ds, box, hidden_sizes=hidden)
        scale = Standardizer(ds).fit(block.observations for block in data.blocks())
        for network in self._networks().values():
            network.observations.load_state_dict(scale.state_dict())
        self.averaged_actor = copy.deepcopy(self.actor)
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=config.learning_rate)
            for name, network in self._networks().items()
        }

    def _networks(self) -> dict[str, Any]:
        return {
            "reward_critic": self.reward_critic,
            "cost_critic": self.cost_critic,
            "behavior": self.behavior,
            "cost_model": self.cost_model,
            "actor": self.actor,
        }

    def _estimation_table(self) -> Table:
        def targets(data: Transitions) -> dict[str, Tensor]:
            return {
                name: discounted_to_go(
                    signal, data.terminals, data.timeouts, discount=self.config.discount
                )
                for name, signal in (("reward_to_go", data.rewards), ("cost_to_go", data.costs))
            }

        names = ("observations", "actions", "next_observations", "costs")
        table = self._dataset.table(names, targets)
        self.reward_critic.values.fit(block["reward_to_go"][:, None] for block in table.stream())
        self.cost_critic.values.fit(block["cost_to_go"][:, None] for block in table.stream())
        return table

    def _estimate(self) -> dict[str, Tensor | float]:
        batch = self._estimation.sample()
        observations, actions = batch["observations"], batch["actions"]
        losses = {
            "reward_critic": critic_loss(
                self.reward_critic, observations, actions, batch["reward_to_go"]
            ),
            "cost_critic": critic_loss(
                self.cost_critic, observations, actions, batch["cost_to_go"]
            ),
            "behavior": self.behavior.nll(observations, actions).mean(),
            "cost_model": cost_model_loss(
                self.cost_model, batch["next_observations"], batch["costs"]
            ),
        }
        rate = self._learning_rate(self.step / self.estimation_steps)
        for name, loss in losses.items():
            self._descend(name, loss, rate)
        return {name: loss.detach() for name, loss in losses.items()}

    # ---------------------------------------------------------------- stage 2: E-step

    def _estep(self) -> tuple[EStepAnswer, dict[str, Tensor | float]]:
        """Solve both E-steps; returns their answer and what is worth logging about them."""
        config, data, generator = self.config, self._dataset, self._generator
        episodes = episode_estep(
            data,
            config,
            cost_model=self.cost_model,
            reach=config.margin * self._epsilon,
            generator=generator,
        )
        rows, candidates = draw_candidates(data, config, self.behavior, generator=generator)
        chosen = candidate_estep(
            data,
            config,
            data.take(("observations",), rows)["observations"],
            candidates,
            reward_critic=self.reward_critic,
            cost_critic=self.cost_critic,
        )
        answer = EStepAnswer(
            episode_weights=episodes.weights[:, 0],
            rows=rows,
            candidates=candidates,
            candidate_weights=chosen.weights.float(),
        )
        return answer, _report("episodes", episodes) | _report("candidates", chosen)

    # ---------------------------------------------------------------- stage 3: M-step

    def _begin_imitation(self, answer: EStepAnswer) -> None:
        # What stage 1 has estimated stands from here on.
        for name, network in self._networks().items():
            network.requires_grad_(name == "actor")
        data, size = self._dataset, self.config.batch_size
        lengths = torch.tensor(data.episodes["length"].to_numpy())
        self._chosen = TransitionSampler(
            data.table(("observations", "actions")),
            batch_size=size,
            seed=self.seed + 1,
            weights=answer.episode_weights / lengths,
            repeats=lengths,
        )
        count = len(answer.candidates)
        states = data.take(("observations",), answer.rows)["observations"]
        self._recovery = TransitionSampler(
            {
                "observations": states.repeat(count, 1),
                "actions": answer.candidates.flatten(0, 1),
            },
            batch_size=size,
            seed=self.seed + 2,
            weights=(answer.candidate_weights * information(answer.candidate_weights)).reshape(-1),
        )

    def _imitate(self) -> dict[str, Tensor | float]:
        config = self.config
        done = (self.step - self.estimation_steps) / (self.steps - self.estimation_steps)
        chosen, recovery = self._chosen.sample(), self._recovery.sample()
        observations = torch.cat([chosen["observations"], recovery["observations"]])
        actions = torch.cat([chosen["actions"], recovery["actions"]])
        weights = torch.ones(len(actions))
        weights[config.batch_size :] = config.recovery_weight
        ramp = min(1.0, done / config.ramp_share) if config.ramp_share else 1.0
        attacked = mixed_attack(
            self._attacks,
            self._victim,
            observations,
            epsilon=ramp * self._epsilon,
            noise=GeneratorNoise(self._generator),
        )
        loss, parts = robust_mstep_loss(
            self.actor,
            observations,
            attacked,
            actions,
            weights,
            adversarial_weight=config.adversarial_weight,
        )
        self._descend("actor", loss, self._learning_rate(done))
        polyak_update(self.averaged_actor, self.actor, config.averaging_rate)
        return {"policy": loss.detach(), **parts, "epsilon_ramp": ramp}

    def _learning_rate(self, done: float) -> float:
        """Constant, then linear to (almost) zero over the last 40 % of a stage."""
        return self.config.learning_rate * max(min(1.0, (1 - done) / 0.4), 0.01)

    def _descend(self, name: str, loss: Tensor, rate: float) -> None:
        optimizer = self._optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        gradient_step(optimizer, loss, max_norm=10.0)

    # ---------------------------------------------------------------- results

    def policy(self) -> TrainedPolicy:
        """The averaged policy with its critics; later updates do not change it."""
        return copy.deepcopy(self._bundle(self.averaged_actor)).requires_grad_(False)

    def _bundle(self, actor: GaussianPolicy) -> TrainedPolicy:
        config, data = self.config, self._dataset
        returns = data.episodes["return"]
        info = PolicyInfo(
            algorithm=self.name,
            observation_size=data.observation_size,
            action_size=data.action_size,
            hidden_sizes=config.hidden_sizes,
            critic_hidden_sizes=config.hidden_sizes,
            critic_members=config.critic_members,
            context=data.metadata.context,
            cost_limit=config.cost_limit,
            reward_range=(float(returns.min()), float(returns.max())),
            dataset_sha256=data.metadata.content_sha256,
            training={
                "config": dataclasses.asdict(config),
                "steps": self.steps,
                "step": self.step,
                "seed": self.seed,
            },
        )
        return TrainedPolicy(
            info, actor=actor, reward_critic=self.reward_critic, cost_critic=self.cost_critic
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; tensors and plain types only."""
        networks = self._networks() | {"averaged_actor": self.averaged_actor}
        return {
            "step": self.step,
            "generator": self._generator.get_state(),
            "networks": {name: network.state_dict() for name, network in networks.items()},
            "optimizers": {name: opt.state_dict() for name, opt in self._optimizers.items()},
            "samplers": {name: sampler.state_dict() for name, sampler in self._samplers().items()},
            "answer": None if self._answer is None else dict(vars(self._answer)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self._generator.set_state(state["generator"])
        for name, network in (self._networks() | {"averaged_actor": self.averaged_actor}).items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if state["answer"] is not None:
            self._answer = EStepAnswer(**state["answer"])
            self._begin_imitation(self._answer)
        for name, sampler in self._samplers().items():
            sampler.load_state_dict(state["samplers"][name])

    def _samplers(self) -> dict[str, TransitionSampler]:
        """The samplers there are so far."""
        if self._answer is None:
            return {"estimation": self._estimation}
        return {
            "estimation": self._estimation,
            "chosen": self._chosen,
            "recovery": self._recovery,
        }


def _report(which: str, result: EStepResult) -> dict[str, Tensor | float]:
    """What to log of an E-step."""
    return {
        f"{which}_eta": result.eta,
        f"{which}_lambda": result.lam,
        f"{which}_cost_limit": result.cost_limit,
        f"{which}_relaxed": float(result.status == "relaxed"),
        f"{which}_kkt_residual": result.kkt_residual,
        f"{which}_effective": float((1 / (result.weights.double() ** 2).sum(0)).mean()),
    }


def _require_steps(steps: int) -> None:
    if steps < 2:
        raise UsageError(f"training needs at least 2 steps, one for each stage, not {steps}")
