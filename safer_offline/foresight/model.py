"""A model of the world, learned from a fixed dataset: what follows a state and an action.

M networks of the same shape, each on batches of its own, predict in deviations of the data

    the change of the observation, the reward, P(cost > 0) and P(the episode ends)

after a step. Where the data say enough the members agree; where they do not, each guesses in its
own way, and their disagreement tells (Chua et al., "Deep Reinforcement Learning in a Handful of
Trials using Probabilistic Dynamics Models", NeurIPS 2018).

The unit of a change is what is usual of it, and errors beyond that count linearly (Huber). Else all
that is learned are the few steps of a crash, or those where a quaternion becomes its negative,
which is the same orientation: on drones these make a deviation up to twenty times a median change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.datasets.dataset.access import Columns, Table, Transitions, TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import UsageError
from safer_offline.policies.layers import EnsembleMLP, Standardizer, gradient_step

NAMES = ("observations", "actions", "next_observations", "rewards", "costs")
LEAST_LOGIT = -30.0
"""Of what never happens in the data."""

USUAL_SHARE, NORMAL_DEVIATIONS = 0.9, 1.645
"""So many deviations of a normal distribution hold this share of it."""
SAMPLE_ROWS = 65_536
"""Transitions, evenly spaced, whose changes say what is usual."""
LEAST_UNIT = 1e-5
"""In deviations. What mostly does not change at all, such as a contact, has no usual change."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Settings of the model.

    Attributes:
        members: Networks M, at least 2: one alone disagrees with nobody.
        hidden_sizes: Their hidden layers.
        steps: Updates.
        batch_size: Rows of a batch, for each member.
        learning_rate: Falls to zero as a cosine.
    """

    members: int = 3
    hidden_sizes: tuple[int, ...] = (200, 200)
    steps: int = 8_000
    batch_size: int = 256
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name, least in (("members", 2), ("steps", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")


class Step(NamedTuple):
    """What is predicted of a step, by each of M members for B rows.

    Attributes:
        change: Of the observation, in usual changes of the data, (M, B, ds).
        reward: In deviations from the data's mean, (M, B).
        cost: Logit of P(cost > 0), (M, B).
        end: Logit of P(the episode ends here, not by a time limit), (M, B).
    """

    change: Tensor
    reward: Tensor
    cost: Tensor
    end: Tensor


class DynamicsEnsemble(nn.Module):
    """The M networks and the units of what they take and give.

    Args:
        observation_size: Numbers in an observation.
        action_size: Numbers in an action.
        config: Settings.

    Attributes:
        costly: Mean cost of a costly step in the data, ().
        low: Least value of each observation coordinate in the data, (ds,).
        high: Largest one.
        happens: Whether the data have costs, and ends that are no time limits, bool (2,).
    """

    costly: Tensor
    low: Tensor
    high: Tensor
    happens: Tensor

    def __init__(self, observation_size: int, action_size: int, config: DynamicsConfig) -> None:
        super().__init__()
        self.members = config.members
        self.observations = Standardizer(observation_size)
        self.actions = Standardizer(action_size)
        self.changes = Standardizer(observation_size)
        self.rewards = Standardizer(1)
        sizes = (observation_size + action_size, *config.hidden_sizes, observation_size + 3)
        self.networks = EnsembleMLP(config.members, sizes)
        self.register_buffer("costly", torch.zeros(()))
        self.register_buffer("low", torch.full((observation_size,), torch.inf))
        self.register_buffer("high", torch.full((observation_size,), -torch.inf))
        self.register_buffer("happens", torch.ones(2, dtype=torch.bool))

    def fit_units(self, table: Table) -> None:
        """Take means, deviations and bounds from the data."""

        def column(name: str) -> Iterator[Tensor]:
            return (block[name] for block in table.stream())

        changes = (block["next_observations"] - block["observations"] for block in table.stream())
        self.observations.fit(column("observations"), leave_out_constants=True)
        self.actions.fit(column("actions"), leave_out_constants=True)
        self.changes.fit(changes, min_std=1e-8)
        self.changes.std.copy_(usual_changes(table, self.changes.std))
        self.rewards.fit((block["rewards"][:, None] for block in table.stream()), min_std=1e-8)
        costly, count, ends = torch.zeros(()).double(), 0, 0.0
        for block in table.stream():
            for seen in (block["observations"], block["next_observations"]):
                self.low.copy_(torch.minimum(self.low, seen.amin(0)))
                self.high.copy_(torch.maximum(self.high, seen.amax(0)))
            costs = block["costs"][block["costs"] > 0]
            costly, count = costly + costs.double().sum(), count + len(costs)
            ends += float(block["ends"].sum())
        self.costly.copy_(costly / max(count, 1))
        self.happens.copy_(torch.tensor([count > 0, ends > 0]))

    def forward(self, observations: Tensor, actions: Tensor) -> Step:
        """Predict a step.

        Args:
            observations: Raw, (B, ds) for all members or (M, B, ds), one batch for each.
            actions: Likewise, (B, da) or (M, B, da).
        """
        inputs = torch.cat([self.observations(observations), self.actions(actions)], dim=-1)
        outputs = self.networks(inputs)
        change, reward, logits = outputs.split([outputs.shape[-1] - 3, 1, 2], dim=-1)
        cost, end = torch.where(self.happens, logits, LEAST_LOGIT).unbind(-1)
        return Step(change, reward.squeeze(-1), cost, end)

    def loss(self, batch: Columns) -> Tensor:
        """Huber's losses and cross-entropies of (M, B, ...) rows, summed over members."""
        told = self(batch["observations"], batch["actions"])
        changes = self.changes(batch["next_observations"] - batch["observations"])
        rewards = self.rewards(batch["rewards"][..., None]).squeeze(-1)
        entropy = functional.binary_cross_entropy_with_logits
        return self.members * (
            functional.smooth_l1_loss(told.change, changes)
            + functional.smooth_l1_loss(told.reward, rewards)
            + entropy(told.cost, (batch["costs"] > 0).float())
            + entropy(told.end, batch["ends"])
        )

    def follow(self, observations: Tensor, step: Step) -> Tensor:
        """The observations (M, B, ds) that these steps lead to, no further than the data reach."""
        return torch.clamp(observations + self.changes.inverse(step.change), self.low, self.high)


def transitions_of(dataset: TransitionSource) -> Table:
    """What the model is fitted to: `NAMES`, and where an episode truly ended, `ends`."""

    def ends(data: Transitions) -> dict[str, Tensor]:
        return {"ends": data.terminals.float()}

    return dataset.table(NAMES, ends)


def usual_changes(table: Table, deviations: Tensor) -> Tensor:
    """What is usual of each coordinate's changes: their deviation if the tails were a normal one's.

    Args:
        table: See `transitions_of`.
        deviations: Of the changes, (ds,); never exceeded, and kept where nothing else is usual.
    """
    count = table.num_rows
    rows = torch.linspace(0, count - 1, min(SAMPLE_ROWS, count), dtype=torch.float64).long()
    taken = table.take(rows)
    changes = taken["next_observations"] - taken["observations"]
    far = (changes - changes.median(0).values).abs()
    usual = far.kthvalue(math.ceil(USUAL_SHARE * len(far)), dim=0).values / NORMAL_DEVIATIONS
    return torch.where(usual > LEAST_UNIT * deviations, usual.minimum(deviations), deviations)


def fit_dynamics(
    dataset: TransitionSource, config: DynamicsConfig, *, seed: int
) -> DynamicsEnsemble:
    """Fit the ensemble to a dataset.

    Args:
        dataset: The data.
        config: Settings.
        seed: Same seed, same machine: same model, bit for bit.
    """
    table = transitions_of(dataset)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = DynamicsEnsemble(dataset.observation_size, dataset.action_size, config)
    model.fit_units(table)
    batches = TransitionSampler(table, batch_size=config.members * config.batch_size, seed=seed)
    optimizer = torch.optim.Adam(model.networks.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    for _ in range(config.steps):
        rows = {
            name: column.reshape(config.members, config.batch_size, *column.shape[1:])
            for name, column in batches.sample().items()
        }
        gradient_step(optimizer, model.loss(rows), max_norm=10.0)
        schedule.step()
    return model.requires_grad_(False)
