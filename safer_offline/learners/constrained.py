"""What baselines with a limit on the discounted cost share: settings, batches, critics, steps.

Three things differ from OSRL (Liu et al., "Datasets and Benchmarks for Offline Safe Reinforcement
Learning", 2023) in all of them, and each is a setting:

* OSRL takes an episode that was cut by its time limit for one that ended, so that what a state is
  worth depends on the time left, which no observation tells (`timeouts_end=True`). Its limit on the
  discounted cost is that of an episode that ends; without ends, it is that of steps without end.
* OSRL lets the targets of cost go on behind true ends (`cost_ends=False`).
* OSRL does not standardise observations (`standardize=False`).

OSRL's length of episodes is typed in for each task; here it is that of the data's longest one,
unless it is given.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from safer_offline.datasets.dataset.access import Transitions, TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import DataError, UsageError
from safer_offline.learners.robust import Distribution, RobustConfig, RobustExtraction
from safer_offline.learners.simple import SimpleLearner
from safer_offline.policies.critics import CriticEnsemble, StateValue
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.squashed import SquashedGaussianPolicy


@dataclass(frozen=True, kw_only=True)
class ConstrainedConfig:
    """Settings that all of them have.

    Attributes:
        cost_limit: Largest expected cost of an episode, undiscounted.
        episode_length: Steps of an episode, by which the limit is discounted; none takes the
            longest of the data.
        discount: Of reward and cost.
        reward_scale: Rewards are multiplied by it while learning.
        timeouts_end: Whether a time limit counts as an end, as in OSRL.
        hidden_sizes: Hidden layers of the policy.
        critic_hidden_sizes: Hidden layers of the critics.
        critic_members: Networks in an ensemble of critics.
        actor_rate: Learning rate of the policy.
        critic_rate: Learning rate of the critics.
        batch_size: Rows of a batch.
        standardize: Whether networks see standardised observations; false as in OSRL.
    """

    cost_limit: float = 10.0
    episode_length: int | None = None
    discount: float = 0.99
    reward_scale: float = 0.1
    timeouts_end: bool = False
    hidden_sizes: tuple[int, ...] = (256, 256)
    critic_hidden_sizes: tuple[int, ...] = (256, 256)
    critic_members: int = 2
    actor_rate: float = 1e-3
    critic_rate: float = 1e-3
    batch_size: int = 512
    standardize: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.cost_limit < math.inf:
            raise UsageError(f"cost_limit must be >= 0 and finite, but is {self.cost_limit}")
        if not 0 <= self.discount < 1:
            raise UsageError(f"discount must be at least 0 and below 1, but is {self.discount}")
        if self.episode_length is not None:
            require_positive(self, "episode_length")
        require_positive(
            self, "reward_scale", "critic_members", "actor_rate", "critic_rate", "batch_size"
        )


@dataclass(frozen=True, kw_only=True)
class CriticConfig(ConstrainedConfig):
    """Settings of those that learn critics of actions by temporal differences.

    Attributes:
        cost_ends: Whether targets of cost end where an episode does; OSRL's go on (false).
        target_rate: Share of the new weights that target networks take over in each update.
        vae_hidden_size: Width of the two hidden layers of encoder and decoder.
        vae_rate: Learning rate of the autoencoder.
        kl_weight: Weight of the divergence in its loss.
        sampled_actions: Actions that are drawn at each state where several are needed.
    """

    cost_ends: bool = True
    target_rate: float = 0.005
    vae_hidden_size: int = 400
    vae_rate: float = 1e-3
    kl_weight: float = 0.5
    sampled_actions: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "vae_hidden_size", "vae_rate", "sampled_actions")
        if not 0 < self.target_rate <= 1:
            raise UsageError(f"target_rate must be > 0 and <= 1, but is {self.target_rate}")
        if not 0 <= self.kl_weight < math.inf:
            raise UsageError(f"kl_weight must be >= 0 and finite, but is {self.kl_weight}")


def require_positive(config: object, *names: str) -> None:
    """Refuse settings that are not above 0 and finite.

    Raises:
        UsageError: It names the first.
    """
    for name in names:
        if not 0 < (value := getattr(config, name)) < math.inf:
            raise UsageError(f"{name} must be > 0 and finite, but is {value}")


def discounted_limit(
    cost_limit: float, *, episode_length: int, discount: float, endless: bool
) -> float:
    """What the discounted cost may be if a cost per episode is spread evenly over its steps.

    Args:
        cost_limit: Cost of an episode.
        episode_length: Its steps.
        discount: Below 1.
        endless: Whether steps go on behind the time limit.
    """
    steps = math.inf if endless else episode_length
    return cost_limit / episode_length * (1 - discount**steps) / (1 - discount)


def require_costs(dataset: TransitionSource, *, algorithm: str) -> None:
    """Refuse data without any cost: nothing in them says what to avoid.

    Raises:
        DataError: It says which algorithm and which command help.
    """
    if float(dataset.episodes["cost"].sum()) == 0:
        raise DataError(
            f"no step costs anything, so {algorithm} cannot learn what costs",
            path=dataset.path,
            field="costs",
            remedy="clone these episodes with --algorithm bc; or, if the costs are under another "
            "name, convert the file with `safer-offline data convert --cost-from NAME`",
        )


PIECE_ROWS = 512
"""Rows of a piece of a larger batch; 4 x 512 x 256 numbers are 2 MiB."""

T = TypeVar("T")
C = TypeVar("C", bound=ConstrainedConfig)
K = TypeVar("K", bound=CriticConfig)


class ConstrainedLearner(SimpleLearner[C]):
    """A `SimpleLearner` with batches of transitions and a limit on the discounted cost.

    Attributes:
        limit: The limit, discounted.
        observation_std: Deviations of the data's observations, infinite where these are constant.
        table: The arrays `observations`, `next_observations`, `actions` and `costs`, and what
            `columns` gives.
        batches: Batches of its rows.
    """

    def build(self) -> None:
        """See `SimpleLearner`."""
        config, dataset = self.config, self.dataset
        require_costs(dataset, algorithm=self.name)
        self.limit = self.discounted(config.cost_limit)
        self.scale, spread = (Standardizer(dataset.observation_size) for _ in range(2))
        self.standardize(spread)
        self.observation_std = spread.std
        if config.standardize:
            self.scale = spread
        names = ("observations", "next_observations", "actions", "costs")
        self.table = dataset.table(names, derive=self.columns)
        self.batches = TransitionSampler(self.table, batch_size=config.batch_size, seed=self.seed)

    def discounted(self, cost: float) -> float:
        """What the discounted cost is where that of an episode is `cost`."""
        config = self.config
        return discounted_limit(
            cost,
            episode_length=self.episode_length(),
            discount=config.discount,
            endless=not config.timeouts_end,
        )

    def episode_length(self) -> int:
        """Steps of an episode: as set, or those of the data's longest."""
        return self.config.episode_length or int(self.dataset.episodes["length"].max())

    def columns(self, transitions: Transitions) -> Mapping[str, Tensor]:
        """What data do not hold: scaled `rewards`, and 1 or 0 for `going_on`, each (n,)."""
        ends = transitions.terminals
        if self.config.timeouts_end:
            ends = ends | transitions.timeouts
        return {
            "rewards": self.reward_unit() * transitions.rewards,
            "going_on": (~ends).float(),
        }

    def reward_unit(self) -> float:
        """What rewards are multiplied by while learning."""
        return self.config.reward_scale

    def scaled(self, network: Any) -> Any:  # noqa: ANN401 - whatever has `observations`
        """The same network with the data's scale of observations."""
        network.observations.load_state_dict(self.scale.state_dict())
        return network

    def squashed_policy(self) -> SquashedGaussianPolicy:
        """A new squashed Gaussian of the dataset's sizes."""
        policy: SquashedGaussianPolicy = self.scaled(
            SquashedGaussianPolicy(
                self.dataset.observation_size,
                copy.deepcopy(self.box),
                hidden_sizes=self.config.hidden_sizes,
            )
        )
        return policy

    def robust_extraction(
        self,
        config: RobustConfig,
        policy: Callable[[Tensor], Distribution],
        *,
        inner: Callable[[Tensor], Distribution] | None = None,
    ) -> RobustExtraction:
        """What makes a policy robust while it learns, as settings say; see there."""
        return RobustExtraction(
            config,
            policy,
            inner=inner,
            observation_std=self.observation_std,
            generator=self.generator,
        )

    def value_critic(self, *, unit: float = 1.0, members: int | None = None) -> CriticEnsemble:
        """A new critic; it learns in the unit that is given, and answers in raw ones."""
        critic: CriticEnsemble = self.scaled(
            CriticEnsemble(
                self.dataset.observation_size,
                self.dataset.action_size,
                members=members or self.config.critic_members,
                hidden_sizes=self.config.critic_hidden_sizes,
            )
        )
        critic.values.std.fill_(1 / unit)
        return critic

    def state_value(self, *, members: int | None = None) -> StateValue:
        """A new value of states, of the critics' sizes."""
        value: StateValue = self.scaled(
            StateValue(
                self.dataset.observation_size,
                members=members or self.config.critic_members,
                hidden_sizes=self.config.critic_hidden_sizes,
            )
        )
        return value

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.empty(shape).normal_(generator=self.generator).to(self.device)


def adam(*networks: nn.Module, rate: float) -> torch.optim.Adam:
    """Adam in one kernel, over all parameters of some networks."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return torch.optim.Adam(parameters, lr=rate, fused=True)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step, unclipped, along the gradient of these parameters alone.

    What else the loss depends on, such as the critics that judge a policy, costs no time.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def squared_errors(estimates: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of (E, B) estimates against (B,) targets, summed over members."""
    return ((estimates - targets) ** 2).mean(1).sum()


def target_copy(network: nn.Module) -> Any:  # noqa: ANN401 - the same class
    """A copy that no gradient reaches."""
    return copy.deepcopy(network).requires_grad_(False)


def detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses for the log."""
    return {name: loss.detach() for name, loss in losses.items()}


def in_pieces(function: Callable[..., T], *rows: Tensor) -> Iterator[T]:
    """Results for `PIECE_ROWS` rows at a time, whose activations stay in the processor's cache.

    Args:
        function: Takes as many tensors as `rows` are.
        rows: Tensors with the same number of rows.
    """
    return map(function, *(torch.split(tensor, PIECE_ROWS) for tensor in rows))


def repeat_rows(rows: Tensor, times: int) -> Tensor:
    """Each of (B, size) rows so many times, one after the other: (B * times, size)."""
    return rows.repeat_interleave(times, dim=0)
