"""Offline SAFER: a constrained E-step on a fixed dataset, then a robust M-step.

Source: Liu et al., "Towards Robust and Safe Reinforcement Learning with Benign Off-policy Data",
ICML 2023. What is ours is how its two stages become purely offline:

1. *Estimate* (`estimation`). Critics of reward and cost, a model of the behaviour and a model of
   cost are fitted to the data by supervised learning. No learned action enters a target.
2. *E-step* (`offline_estep`). The same convex problem is solved twice. Over whole episodes, with
   their observed returns and the costs they would have had within the attacker's reach
   (`margins`): this says which paths to follow. And over candidate actions at states drawn from
   all of the data, with the critics: this says how to recover, at states that the chosen episodes
   never visit but an attack leads to. Both multipliers are solved, not tuned.
3. *M-step* (`imitation`). The policy is fitted to both answers, at true and at attacked
   observations. What must be steered all the time, as a drone, is imitated otherwise
   (`foretelling`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from safer_offline.attacks import attack_budget
from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.errors import UsageError
from safer_offline.learners.base import policy_info
from safer_offline.learners.echoes import echoes_of_actions
from safer_offline.learners.safer.config import (
    AFTER_STAGE_1,
    ALTERNATIVES,
    BOLDER,
    UNATTACKED,
    SAFERConfig,
)
from safer_offline.learners.safer.doubts import doubt_critics, doubt_recovery, doubt_weights
from safer_offline.learners.safer.estimation import Estimation
from safer_offline.learners.safer.foretelling import ForetoldImitation
from safer_offline.learners.safer.imitation import Fitting, Imitation
from safer_offline.learners.safer.offline_estep import (
    EStepAnswer,
    offline_estep,
    steps_within_reach,
)
from safer_offline.learners.state import move_attributes
from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.foretold import ForetoldPolicy
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.trained import TrainedPolicy


class SAFER:
    """Offline SAFER: which episodes and recoveries to follow, then a robust fit to them.

    Args:
        config: Settings.
        dataset: What to learn from.
        steps: Updates of a complete training, stages 1 and 3 together.
        seed: Same seed, same machine: same policy, bit for bit (on the CPU).
        device: Where it learns.

    Attributes:
        config: As given, like `dataset`, `steps` and `seed`.
        device: Where networks are and batches go; random numbers are always the CPU's.
        budget: Of the attacks, raw units, shape (ds,).
        step: Updates done.
        estimation: Stage 1.
        imitation: Stage 3; None until the E-step, stage 2, is solved between them.
        actor: The policy network.

    Raises:
        UsageError: If a setting does not fit the dataset.
    """

    name: ClassVar[str] = "safer"
    Config: ClassVar[type[SAFERConfig]] = SAFERConfig
    alternatives: ClassVar[tuple[Mapping[str, Any], ...]] = ALTERNATIVES
    bolder: ClassVar[tuple[Mapping[str, Any], ...]] = BOLDER
    unattacked: ClassVar[Mapping[str, Any]] = UNATTACKED
    after_stage_1: ClassVar[frozenset[str]] = AFTER_STAGE_1

    def __init__(
        self,
        config: SAFERConfig,
        dataset: TransitionSource,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if steps < 2:
            raise UsageError(f"training needs at least 2 steps, one for each stage, not {steps}")
        self.config, self.dataset, self.steps, self.seed = config, dataset, steps, seed
        self.step = 0
        self._generator = torch.Generator().manual_seed(seed)
        size = dataset.observation_size
        scale = Standardizer(size).fit(
            (block.observations for block in dataset.blocks()), leave_out_constants=True
        )
        unread = torch.zeros(size, dtype=torch.bool)
        if not config.read_last_action:
            unread = echoes_of_actions(dataset)
        self.budget = attack_budget(config.epsilon, scale.std, units=config.epsilon_units)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.estimation = Estimation(
                config,
                dataset,
                scale=scale,
                unread=unread,
                steps=max(1, min(steps - 1, round(config.estimation_share * steps))),
                seed=seed,
            )
            self.actor = self.build_actor(scale.without(unread))
        self.imitation: Fitting | None = None
        self.device = torch.device(device)
        move_attributes(self, self.device)
        move_attributes(self.estimation, self.device)

    def build_actor(self, scale: Standardizer) -> Actor:
        """The policy network, whose observations are standardised by `scale`."""
        box = ActionBox(self.dataset.action_low, self.dataset.action_high)
        kind = ForetoldPolicy if self.config.foretold else GaussianPolicy
        actor = kind(self.dataset.observation_size, box, hidden_sizes=self.config.hidden_sizes)
        actor.observations = scale
        return actor

    def update(self) -> dict[str, Tensor | float]:
        """One update of the stage that is due; the E-step is solved when stage 3 begins."""
        if self.step < self.estimation.steps:
            losses = self.estimation.update(self.step)
        else:
            report: dict[str, Tensor | float] = {}
            if self.imitation is None:
                self.estimation.freeze()
                doubted = doubt_critics(self.estimation)
                if self.config.recovery_weight and "cost" not in doubted:
                    doubt_recovery(self.estimation)
                answer, report = self.solve_estep()
                doubt_weights(float(report["episodes_effective"]))
                self.imitation = self.imitate(answer)
            losses = self.imitation.update(self.step - self.estimation.steps) | report
        self.step += 1
        return losses

    def policy(self) -> TrainedPolicy:
        """The averaged policy with its critics, on the CPU; later updates do not change it."""
        actor = self.actor if self.imitation is None else self.imitation.averaged_actor
        return copy.deepcopy(self._with_critics(actor)).requires_grad_(False).cpu()

    def solve_estep(self) -> tuple[EStepAnswer, dict[str, Tensor | float]]:
        """Stage 2: what to follow, and what is worth logging about it."""
        return offline_estep(
            self.dataset,
            self.config,
            self.estimation,
            epsilon=self.budget,
            generator=self._generator,
        )

    def imitate(self, answer: EStepAnswer) -> Fitting:
        """Stage 3, before its first update."""
        if isinstance(self.actor, ForetoldPolicy):
            return self.foretell(answer, self.actor)
        return self.imitation_of(answer, self.actor, config=self.config, epsilon=self.budget)

    def imitation_of(
        self, answer: EStepAnswer, network: Actor, *, config: SAFERConfig, epsilon: Tensor
    ) -> Imitation:
        """The M-step of one network, before its first update."""
        imitation = Imitation(
            config,
            self.dataset,
            answer,
            actor=network,
            victim=self._with_critics(network),
            epsilon=epsilon,
            steps=self.steps - self.estimation.steps,
            seed=self.seed,
            generator=self._generator,
        )
        move_attributes(imitation, self.device)
        return imitation

    def foretell(self, answer: EStepAnswer, network: ForetoldPolicy) -> ForetoldImitation:
        """The M-step of one network that is told what follows, before its first update."""
        blocks = steps_within_reach(
            self.dataset,
            cost_model=self.estimation.cost_model,
            reach=self.config.margin * self.budget,
            # Of its own, so that a resumed training finds the same.
            generator=torch.Generator().manual_seed(self.seed),
        )
        imitation = ForetoldImitation(
            self.config,
            self.dataset,
            answer,
            signals=torch.cat([torch.stack(block, dim=1) for block in blocks]),
            actor=network,
            steps=self.steps - self.estimation.steps,
            seed=self.seed,
        )
        move_attributes(imitation, self.device)
        return imitation

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; tensors and plain types only."""
        return {
            "step": self.step,
            "generator": self._generator.get_state(),
            "estimation": self.estimation.state_dict(),
            "actor": self.actor.state_dict(),
            "imitation": None if self.imitation is None else self.imitation.state_dict(),
        }

    def shared_steps(self, differing: Collection[str]) -> int:
        """See `Beginning`: those of stage 1."""
        return self.estimation.steps if set(differing) <= self.after_stage_1 else 0

    def begin_with(self, state: dict[str, Any]) -> None:
        """See `Beginning`."""
        self.estimation.load_state_dict(state["estimation"])
        self.step = self.estimation.steps

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self._generator.set_state(state["generator"])
        self.estimation.load_state_dict(state["estimation"])
        self.actor.load_state_dict(state["actor"])
        if state["imitation"] is not None:
            self.estimation.freeze()
            self.imitation = self.imitate(EStepAnswer(**state["imitation"]["answer"]))
            self.imitation.load_state_dict(state["imitation"])

    def _with_critics(self, actor: Actor) -> TrainedPolicy:
        estimated = self.estimation
        return TrainedPolicy(
            policy_info(self),
            actor=actor,
            reward_critic=estimated.reward_critic,
            cost_critic=estimated.cost_critic,
        )
