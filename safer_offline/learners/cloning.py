"""Behaviour cloning: of everybody, or of episodes chosen by cost and return; robust on request.

The baselines that every comparison begins with. As in OSRL (Liu et al., "Datasets and Benchmarks
for Offline Safe Reinforcement Learning", 2023), whose modes of `BC` are algorithms here: `bc` for
all episodes, `bc-safe`, `bc-risky`, `bc-boundary`, `bc-frontier`, `bc-multi-task`. Two things
differ: observations are standardised, and the deviation of the actions is learned by default
(`loss="nll"`), because attacks on the policy need one; `loss="mse"` is OSRL's own loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.attacks import GeneratorNoise, attack_budget
from safer_offline.datasets.dataset.access import Columns, Table, Transitions
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.datasets.dataset.sequences import episode_totals
from safer_offline.errors import DataError, UsageError
from safer_offline.learners.robust import FITS, ActorTarget, Adversary, RobustConfig
from safer_offline.learners.selection import Weighting, near_frontier, sample_by_episode
from safer_offline.learners.simple import SimpleLearner
from safer_offline.policies.conditioned import CostConditionedPolicy
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer, gradient_step
from safer_offline.policies.trained import TrainedPolicy


@dataclass(frozen=True, kw_only=True)
class BCConfig(RobustConfig):
    """Settings of behaviour cloning.

    Attributes:
        loss: `nll`, the likelihood of a Gaussian, or `mse`, the squared error of its mean.
        weighting: How much the chosen episodes count. `rows`: every row alike. `return`: by return
            above the least. `cost`: by what is left of `cost_cap`. `density`: rare combinations of
            cost and return as much as common ones. `frontier`: by nearness to the best return that
            the data have at a cost.
        cost_cap: For `weighting=cost`, the cost from which on an episode does not count.
        hidden_sizes: Hidden layers of the policy.
        batch_size: Rows of a batch.
        learning_rate: Of Adam.
    """

    loss: Literal["nll", "mse"] = "nll"
    weighting: Weighting = "rows"
    cost_cap: float = 70.0
    hidden_sizes: tuple[int, ...] = (256, 256)
    batch_size: int = 512
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("learning_rate", "cost_cap"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be > 0 and finite, but is {getattr(self, name)}")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, but is {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class BCSafeConfig(BCConfig):
    """Settings of the cloning of safe episodes.

    Attributes:
        cost_limit: Largest cost of an episode that is cloned.
    """

    cost_limit: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cost_limit < math.inf:
            raise UsageError(f"cost_limit must be >= 0 and finite, but is {self.cost_limit}")


@dataclass(frozen=True, kw_only=True)
class BCRiskyConfig(BCSafeConfig):
    """Settings of the cloning of risky episodes.

    Attributes:
        cost_limit: The limit that they break.
        excess: How many times the limit an episode costs at least.
    """

    excess: float = 2.0


@dataclass(frozen=True, kw_only=True)
class BCBoundaryConfig(BCSafeConfig):
    """Settings of the cloning of episodes that cost about the limit.

    Attributes:
        cost_limit: The limit, above 0.
        width: How far from the limit the cost of a cloned episode is at most, as a share of it.
    """

    width: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cost_limit", "width"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be > 0 and finite, but is {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class BCFrontierConfig(BCConfig):
    """Settings of the cloning of episodes near the frontier of cost and return.

    Attributes:
        band: How far from the frontier the return of a cloned episode is at most, as a share of
            the range of returns.
    """

    band: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.band < math.inf:
            raise UsageError(f"band must be > 0 and finite, but is {self.band}")


@dataclass(frozen=True, kw_only=True)
class BCMultiTaskConfig(BCSafeConfig):
    """Settings of cloning under a cost that is told.

    Attributes:
        cost_limit: The episode cost that the policy is told to have when it acts; it can be told
            another one later, `policy.aimed_at(target_cost=20)`.
    """


C = TypeVar("C", bound=BCConfig)


class Cloning(SimpleLearner[C]):
    """Imitates rows of the dataset; subclasses say of which episodes (`choose`)."""

    def build(self) -> None:
        """See `SimpleLearner`."""
        config = self.config
        self.actor, self.network = self.networks()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.batches = self.choose_rows()
        self._adversary = Adversary(
            config, budget=self.budget(), noise=GeneratorNoise(self.generator)
        )
        self._victim = ActorTarget(self.network)

    def networks(self) -> tuple[GaussianPolicy | CostConditionedPolicy, GaussianPolicy]:
        """The policy to keep, and the network in it that is fitted to inputs."""
        actor = self.gaussian_policy(self.config.hidden_sizes)
        return actor, actor

    def budget(self) -> Tensor:
        """How far an attack may move each input of the network."""
        return attack_budget(
            self.config.epsilon, self.actor.observations.std, units=self.config.epsilon_units
        )

    def choose(self, costs: NDArray[Any], returns: NDArray[Any]) -> NDArray[Any] | None:
        """Which episodes to imitate, (E,) bool, by cost and return; None for all."""
        return None

    def choose_rows(self) -> TransitionSampler:
        """Draws the rows to imitate."""
        config, episodes = self.config, self.dataset.episodes
        costs, returns = (episodes[name].to_numpy(float) for name in ("cost", "return"))
        chosen = self.choose(costs, returns)
        if chosen is None and config.weighting == "rows":
            return TransitionSampler(self.rows(), batch_size=config.batch_size, seed=self.seed)
        return sample_by_episode(
            self.dataset,
            self.rows(),
            weighting=config.weighting,
            cost_cap=config.cost_cap,
            chosen=chosen,
            batch_size=config.batch_size,
            seed=self.seed,
        )

    def rows(self) -> Table:
        """What a row of a batch holds."""
        return self.dataset.table(("observations", "actions"))

    def inputs(self, batch: Columns) -> Tensor:
        """What the network sees of a batch."""
        return batch["observations"]

    def learn(self) -> dict[str, Tensor | float]:
        """See `SimpleLearner`."""
        batch, config = self.batches.sample(), self.config
        loss, losses = self._adversary.loss(
            self.network,
            self._victim,
            self.inputs(batch),
            batch["actions"],
            batch["actions"].new_ones(len(batch["actions"])),
            done=self.step / self.steps,
            fit=FITS[config.loss],
        )
        gradient_step(self.optimizer, loss, max_norm=math.inf)
        return {"policy": loss.detach(), **losses}

    def policy(self) -> TrainedPolicy:
        """See `SimpleLearner`."""
        return self.trained_policy(self.actor)

    def _require_some(self, chosen: NDArray[Any], what: str, remedy: str) -> NDArray[Any]:
        if not chosen.any():
            raise DataError(what, path=self.dataset.path, field="costs", remedy=remedy)
        return chosen


class BC(Cloning[BCConfig]):
    """Behaviour cloning of all episodes."""

    name: ClassVar[str] = "bc"
    Config = BCConfig


class BCSafe(Cloning[BCSafeConfig]):
    """Behaviour cloning of the episodes that kept the cost limit."""

    name: ClassVar[str] = "bc-safe"
    Config = BCSafeConfig

    def choose(self, costs: NDArray[Any], returns: NDArray[Any]) -> NDArray[Any]:
        """Episodes within the limit."""
        limit = self.config.cost_limit
        return self._require_some(
            costs <= limit,
            f"no episode keeps the cost limit of {limit:g}",
            f"there is nothing to clone below --cost-limit {costs.min():g}",
        )


class BCRisky(Cloning[BCRiskyConfig]):
    """Behaviour cloning of the episodes that cost twice the limit or more."""

    name: ClassVar[str] = "bc-risky"
    Config = BCRiskyConfig

    def choose(self, costs: NDArray[Any], returns: NDArray[Any]) -> NDArray[Any]:
        """Episodes far beyond the limit."""
        least = self.config.excess * self.config.cost_limit
        return self._require_some(
            costs >= least,
            f"no episode costs {least:g}, which is excess x cost_limit",
            f"the dearest one costs {costs.max():g}: lower --cost-limit, or --set excess=...",
        )


class BCBoundary(Cloning[BCBoundaryConfig]):
    """Behaviour cloning of the episodes that cost about the limit."""

    name: ClassVar[str] = "bc-boundary"
    Config = BCBoundaryConfig

    def choose(self, costs: NDArray[Any], returns: NDArray[Any]) -> NDArray[Any]:
        """Episodes within `width` of the limit."""
        limit, width = self.config.cost_limit, self.config.width
        nearest = costs[abs(costs - limit).argmin()]
        return self._require_some(
            ((1 - width) * limit < costs) & (costs <= (1 + width) * limit),
            f"no episode costs between {(1 - width) * limit:g} and {(1 + width) * limit:g}",
            f"the nearest one costs {nearest:g}: take another --cost-limit, or --set width=... "
            f"above {abs(nearest - limit) / limit:.3g}",
        )


class BCFrontier(Cloning[BCFrontierConfig]):
    """Behaviour cloning of the episodes with about the best return at their cost."""

    name: ClassVar[str] = "bc-frontier"
    Config = BCFrontierConfig

    def choose(self, costs: NDArray[Any], returns: NDArray[Any]) -> NDArray[Any]:
        """Episodes near the frontier."""
        return self._require_some(
            near_frontier(costs, returns, band=self.config.band),
            f"no episode is within {self.config.band:g} of the range of returns of the frontier",
            "widen it: --set band=...",
        )


class BCMultiTask(Cloning[BCMultiTaskConfig]):
    """Behaviour cloning of all episodes, each told what it costs; acts as if told the limit."""

    name: ClassVar[str] = "bc-multi-task"
    Config = BCMultiTaskConfig

    def networks(self) -> tuple[CostConditionedPolicy, GaussianPolicy]:
        """See `Cloning`."""
        actor = CostConditionedPolicy(
            self.dataset.observation_size,
            copy.deepcopy(self.box),
            hidden_sizes=self.config.hidden_sizes,
        )
        self.standardize(actor.observations)
        costs = torch.tensor(self.dataset.episodes[["cost"]].to_numpy(), dtype=torch.float32)
        actor.standardize_told(Standardizer(1).fit(costs) if len(costs) > 1 else Standardizer(1))
        actor.target_cost.fill_(self.config.cost_limit)
        return actor, actor.network

    def budget(self) -> Tensor:
        """Attacks move observations, never the cost that is told."""
        return torch.cat([super().budget(), torch.zeros(1)])

    def rows(self) -> Table:
        """See `Cloning`; the cost of the row's episode goes along."""
        return self.dataset.table(("observations", "actions"), _episode_costs)

    def inputs(self, batch: Columns) -> Tensor:
        """Observations and costs, (B, ds + 1)."""
        return torch.cat([batch["observations"], batch["episode_cost"][:, None]], dim=1)


def _episode_costs(block: Transitions) -> Mapping[str, Tensor]:
    return {"episode_cost": episode_totals(block.costs, block.terminals | block.timeouts)}
