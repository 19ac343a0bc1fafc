"""Stage 1 of offline SAFER: what the data say about reward, cost and behaviour.

Critics of reward and cost, a model of the behaviour and a model of cost, all fitted by supervised
learning. No learned action enters a target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import Table, Transitions, TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.learners.margins import CostModel, cost_model_loss
from safer_offline.learners.safer.config import SAFERConfig
from safer_offline.learners.safer.schedule import learning_rate, set_learning_rate
from safer_offline.policies.actors import ActionBox
from safer_offline.policies.behavior import BehaviorModel
from safer_offline.policies.critics import CriticEnsemble, critic_loss, discounted_to_go
from safer_offline.policies.layers import Standardizer, gradient_step


class Estimation:
    """Four networks and what they are fitted to.

    The networks are made here, with PyTorch's global generator.

    Args:
        config: Settings.
        dataset: What to learn from.
        scale: Fitted to its observations.
        unread: Coordinates that who imitates does not read, bool (ds,).
        steps: Updates of this stage.
        seed: Of the batches.

    Attributes:
        reward_critic: Discounted reward to go, of states and actions of the data.
        cost_critic: Discounted cost to go.
        behavior: What actions the data take at a state.
        cost_model: Cost of a step, by the state it leads to.
        batches: Draws the rows of an update.
        steps: As given.
    """

    def __init__(
        self,
        config: SAFERConfig,
        dataset: TransitionSource,
        *,
        scale: Standardizer,
        unread: Tensor,
        steps: int,
        seed: int,
    ) -> None:
        ds, da, hidden = dataset.observation_size, dataset.action_size, config.hidden_sizes
        box = ActionBox(dataset.action_low, dataset.action_high)

        def critic() -> CriticEnsemble:
            return CriticEnsemble(ds, da, members=config.critic_members, hidden_sizes=hidden)

        self.steps = steps
        self.reward_critic, self.cost_critic = critic(), critic()
        self.behavior = BehaviorModel(
            ds, box, components=config.mixture_components, hidden_sizes=hidden
        )
        self.cost_model = CostModel(ds, hidden_sizes=hidden)
        for network in self._networks().values():
            network.observations.load_state_dict(scale.state_dict())
        self.behavior.observations = scale.without(unread)
        self._config = config
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=config.learning_rate)
            for name, network in self._networks().items()
        }
        self.batches = TransitionSampler(
            self._targets(dataset), batch_size=config.batch_size, seed=seed
        )

    def update(self, step: int) -> dict[str, Tensor | float]:
        """Fit all four to the next batch.

        Args:
            step: Updates of this stage done so far.

        Returns:
            The losses by name.
        """
        batch = self.batches.sample()
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
        rate = learning_rate(self._config.learning_rate, step / self.steps)
        for name, loss in losses.items():
            set_learning_rate(self._optimizers[name], rate)
            gradient_step(self._optimizers[name], loss, max_norm=10.0)
        return {name: loss.detach() for name, loss in losses.items()}

    def freeze(self) -> None:
        """What was estimated stands from here on."""
        for network in self._networks().values():
            network.requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "networks": {name: one.state_dict() for name, one in self._networks().items()},
            "optimizers": {name: one.state_dict() for name, one in self._optimizers.items()},
            "batches": self.batches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for name, network in self._networks().items():
            network.load_state_dict(state["networks"][name])
            self._optimizers[name].load_state_dict(state["optimizers"][name])
        self.batches.load_state_dict(state["batches"])

    def _networks(self) -> dict[str, Any]:
        return {
            "reward_critic": self.reward_critic,
            "cost_critic": self.cost_critic,
            "behavior": self.behavior,
            "cost_model": self.cost_model,
        }

    def _targets(self, dataset: TransitionSource) -> Table:
        """The rows to draw from, with what critics are fitted to; their scale is taken from it."""

        def to_go(data: Transitions) -> dict[str, Tensor]:
            return {
                name: discounted_to_go(
                    signal, data.terminals, data.timeouts, discount=self._config.discount
                )
                for name, signal in (("reward_to_go", data.rewards), ("cost_to_go", data.costs))
            }

        names = ("observations", "actions", "next_observations", "costs")
        table = dataset.table(names, to_go)
        self.reward_critic.values.fit(block["reward_to_go"][:, None] for block in table.stream())
        self.cost_critic.values.fit(block["cost_to_go"][:, None] for block in table.stream())
        return table
