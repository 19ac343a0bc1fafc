"""A learner with its bookkeeping done, for algorithms of one stage and for your own.

    @dataclass(frozen=True, kw_only=True)
    class CloningConfig:
        hidden_sizes: tuple[int, ...] = (64, 64)


    class Cloning(SimpleLearner[CloningConfig]):
        name = "cloning"
        Config = CloningConfig

        def build(self) -> None:
            self.actor = self.gaussian_policy(self.config.hidden_sizes)
            self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3)
            self.batches = self.sampler("observations", "actions", batch_size=256)

        def learn(self) -> dict[str, Tensor | float]:
            batch = self.batches.sample()
            loss = gaussian_nll(batch["actions"], *self.actor(batch["observations"])).mean()
            gradient_step(self.optimizer, loss, max_norm=10.0)
            return {"nll": loss.detach()}

        def policy(self) -> TrainedPolicy:
            return self.trained_policy(self.actor)

With this in `my_methods.py`: `safer-offline train car_circle.h5 --algorithm my_methods:Cloning`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import UsageError
from safer_offline.learners.base import policy_info
from safer_offline.learners.state import move_attributes, restore_attributes, save_attributes
from safer_offline.policies.actors import ActionBox, Actor
from safer_offline.policies.critics import CriticEnsemble
from safer_offline.policies.gaussian import GaussianPolicy
from safer_offline.policies.layers import Standardizer
from safer_offline.policies.trained import TrainedPolicy

C = TypeVar("C")


class SimpleLearner(ABC, Generic[C]):
    """A `Learner` of which only the algorithm is left to write: `build`, `learn` and `policy`.

    Whatever stands in the attributes of the instance and is a network, an optimiser, a sampler, a
    tensor, a number or a `torch.Generator`, or a dict, list or tuple of such things, is saved in
    checkpoints and restored from them. Random numbers must come from `self.generator`, or a
    resumed training is another one.

    `build` is done on the CPU, and whatever it left in such attributes is then moved to the device.
    There batches come from samplers, and tensors that `learn` makes must be made, as in
    `torch.zeros(3, device=self.device)`; the generator stays on the CPU, so that a seed means the
    same everywhere.

    Args:
        config: Settings, of type `Config`.
        dataset: What to learn from.
        steps: Updates of a complete training.
        seed: Same seed, same machine: same policy, bit for bit (on the CPU).
        device: Where it learns.

    Attributes:
        config: As given, like `dataset`, `steps` and `seed`.
        step: Updates done.
        box: Action bounds of the dataset.
        generator: The source of random numbers.
        device: Where it learns; the CPU as long as it is built.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]

    def __init__(
        self,
        config: C,
        dataset: TransitionSource,
        *,
        steps: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if steps < 1:
            raise UsageError(f"training needs at least 1 step, not {steps}")
        self.config = config
        self.dataset = dataset
        self.steps = steps
        self.seed = seed
        self.step = 0
        self.box = ActionBox(dataset.action_low, dataset.action_high)
        self.generator = torch.Generator().manual_seed(seed)
        self.device = torch.device("cpu")
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.build()
        self.device = torch.device(device)
        move_attributes(self, self.device)

    # ---------------------------------------------------------------- what an algorithm writes

    @abstractmethod
    def build(self) -> None:
        """Make networks, optimisers and samplers, as attributes; the seed is set."""

    @abstractmethod
    def learn(self) -> Mapping[str, Tensor | float]:
        """Do the next update, number `self.step` counted from 0; returns losses by name."""

    @abstractmethod
    def policy(self) -> TrainedPolicy:
        """The policy as it stands; see `trained_policy`."""

    # ---------------------------------------------------------------- what helps to write it

    def gaussian_policy(self, hidden_sizes: Sequence[int]) -> GaussianPolicy:
        """A new policy network of the dataset's sizes, standardised by its observations."""
        actor = GaussianPolicy(
            self.dataset.observation_size, copy.deepcopy(self.box), hidden_sizes=hidden_sizes
        )
        self.standardize(actor.observations)
        return actor

    def critic(self, hidden_sizes: Sequence[int], *, members: int = 2) -> CriticEnsemble:
        """A new critic ensemble of the dataset's sizes, standardised by its observations."""
        critic = CriticEnsemble(
            self.dataset.observation_size,
            self.dataset.action_size,
            members=members,
            hidden_sizes=hidden_sizes,
        )
        self.standardize(critic.observations)
        return critic

    def standardize(self, observations: Standardizer) -> None:
        """Fit the first layer of a network to the dataset's observations."""
        observations.fit(
            (block.observations for block in self.dataset.blocks()), leave_out_constants=True
        )

    def sampler(self, *names: str, batch_size: int) -> TransitionSampler:
        """Random batches of these arrays of the dataset, all rows alike."""
        return TransitionSampler(self.dataset.table(names), batch_size=batch_size, seed=self.seed)

    def trained_policy(
        self,
        actor: Actor,
        *,
        reward_critic: CriticEnsemble | None = None,
        cost_critic: CriticEnsemble | None = None,
    ) -> TrainedPolicy:
        """A policy, on the CPU, that later updates do not change, with its origin for the file."""
        policy = TrainedPolicy(
            policy_info(self), actor=actor, reward_critic=reward_critic, cost_critic=cost_critic
        )
        return copy.deepcopy(policy).requires_grad_(False).cpu()

    # ---------------------------------------------------------------- `Learner`

    def update(self) -> dict[str, Tensor | float]:
        """Do the next update; returns its losses by name."""
        losses = dict(self.learn())
        self.step += 1
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; tensors and plain types only."""
        return save_attributes(self, leave=("config", "dataset", "steps", "seed", "box"))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        restore_attributes(self, state, device=self.device)
