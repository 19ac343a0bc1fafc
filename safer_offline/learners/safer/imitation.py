"""Stage 3 of offline SAFER: the robust M-step.

The policy is fitted to what the E-step chose, at true observations and at those that an attacker
shows in their place. An attacker who tempts (`mc`, `mr`) finds observations nearby at which the
policy would do more, and there, too, it is told to do what is right at the true one: so it comes to
do less than it imitates, everywhere. One who holds it back (`minr`) undoes that. With all four
Car-Circle returns 320 instead of 303, and Ball-Circle 521 instead of 491, and no attack costs more
(16 episodes of seed 7).
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor

from safer_offline.attacks import AttackTarget, GeneratorNoise, training_attacks
from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.learners.robust import Adversary
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.offline_estep import EStepAnswer, information
from safer_offline.learners.safer.schedule import learning_rate, set_learning_rate
from safer_offline.policies.actors import Actor
from safer_offline.policies.layers import gradient_step, polyak_update


class Fitting(Protocol):
    """Stage 3 as a learner drives it: one policy network, or several."""

    answer: EStepAnswer

    @property
    def averaged_actor(self) -> Actor:
        """The policy network to keep."""
        ...

    def update(self, step: int) -> dict[str, Tensor | float]:
        """Do update number `step` of this stage; returns its losses by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The answer, and all that the next update depends on but for what is fitted itself."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the answer is what this was made from."""
        ...


class Imitation:
    """A policy and what it imitates.

    Args:
        config: Settings.
        dataset: What to learn from.
        answer: Of the E-step.
        actor: The policy network to fit.
        victim: The same network with its critics, for the attacks.
        epsilon: Budget of the attacks, raw units, shape (ds,).
        steps: Updates of this stage.
        seed: Of the batches.
        generator: For the attacks.

    Attributes:
        answer: As given.
        averaged_actor: The policy to keep: an exponential average of the fitted one.
        chosen: Draws rows of the episodes that the E-step chose.
        recovery: Draws states of all of the data, and actions that lead back to safety.
    """

    def __init__(
        self,
        config: SAFERConfig,
        dataset: TransitionSource,
        answer: EStepAnswer,
        *,
        actor: Actor,
        victim: AttackTarget,
        epsilon: Tensor,
        steps: int,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        self.answer = answer
        self.averaged_actor = copy.deepcopy(actor)
        self._config, self._steps = config, steps
        self._actor, self._victim = actor, victim
        self._optimizer = torch.optim.Adam(actor.parameters(), lr=config.learning_rate)
        self._adversary = Adversary(
            config,
            budget=epsilon,
            noise=GeneratorNoise(generator),
            attacks=training_attacks(config.attacks, steps=config.attack_steps),
        )
        self.chosen = _chosen_rows(dataset, answer, batch_size=config.batch_size, seed=seed + 1)
        self.recovery = _recovery_rows(dataset, answer, batch_size=config.batch_size, seed=seed + 2)

    def update(self, step: int) -> dict[str, Tensor | float]:
        """Fit the policy to the next batch of each kind.

        Args:
            step: Updates of this stage done so far.

        Returns:
            The losses by name, and how much of the budget the attacks had.
        """
        config, done = self._config, step / self._steps
        chosen, recovery = self.chosen.sample(), self.recovery.sample()
        observations = torch.cat([chosen["observations"], recovery["observations"]])
        actions = torch.cat([chosen["actions"], recovery["actions"]])
        weights = actions.new_ones(len(actions))
        weights[config.batch_size :] = config.recovery_weight
        loss, parts = self._adversary.loss(
            self._actor, self._victim, observations, actions, weights, done=done
        )
        set_learning_rate(self._optimizer, learning_rate(config.learning_rate, done))
        gradient_step(self._optimizer, loss, max_norm=10.0)
        polyak_update(self.averaged_actor, self._actor, config.averaging_rate)
        return {"policy": loss.detach(), **parts}

    def state_dict(self) -> dict[str, Any]:
        """See `Fitting`."""
        return {"answer": dict(vars(self.answer)), **self.progress()}

    def progress(self) -> dict[str, Any]:
        """The same without the answer."""
        return {
            "averaged_actor": self.averaged_actor.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "chosen": self.chosen.state_dict(),
            "recovery": self.recovery.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Fitting`."""
        self.averaged_actor.load_state_dict(state["averaged_actor"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.chosen.load_state_dict(state["chosen"])
        self.recovery.load_state_dict(state["recovery"])


def _chosen_rows(
    dataset: TransitionSource, answer: EStepAnswer, *, batch_size: int, seed: int
) -> TransitionSampler:
    """Rows in proportion to the weight of their episode, however long it is."""
    lengths = torch.tensor(dataset.episodes["length"].to_numpy())
    return TransitionSampler(
        dataset.table(("observations", "actions")),
        batch_size=batch_size,
        seed=seed,
        weights=answer.episode_weights / lengths,
        repeats=lengths,
    )


def _recovery_rows(
    dataset: TransitionSource, answer: EStepAnswer, *, batch_size: int, seed: int
) -> TransitionSampler:
    """Candidates by their weight, endangered states by how much the E-step has to say there."""
    said = information(answer.candidate_weights) * answer.endangered
    if not bool((said > 0).any()):  # all candidates are as good, such as without reward and cost
        said = answer.endangered.float()
    states = dataset.take(("observations",), answer.rows)["observations"]
    return TransitionSampler(
        {
            "observations": states.repeat(len(answer.candidates), 1),
            "actions": answer.candidates.flatten(0, 1),
        },
        batch_size=batch_size,
        seed=seed,
        weights=(answer.candidate_weights * said).reshape(-1),
    )
