"""What the training loop needs of an algorithm, and what a policy tells of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.policies.trained import PolicyInfo, TrainedPolicy


class Learner(Protocol):
    """An algorithm that learns from a fixed dataset, one update after the other.

    It is built as `Kind(config, dataset, steps=..., seed=...)`. One that can learn on other devices
    than the CPU takes a `device` as well, and is given one if it shall. One that knows settings
    which serve some data better than its defaults names them in `alternatives`, a tuple of
    mappings, and those of less care in `bolder`; one that has more to leave out than
    `adversarial_weight` where nobody attacks names these settings in `unattacked`. One that may
    begin with updates of another training is a `Beginning`, too.
    """

    name: ClassVar[str]
    """What checkpoints and policy files call it."""

    Config: ClassVar[type[Any]]
    """The dataclass of its settings; values that JSON knows, and a default for each."""

    @property
    def step(self) -> int:
        """Updates done."""
        ...

    @property
    def steps(self) -> int:
        """Updates that make a complete training."""
        ...

    def update(self) -> dict[str, Tensor | float]:
        """Do the next update; returns its losses by name."""
        ...

    def policy(self) -> TrainedPolicy:
        """The policy as it stands, on the CPU."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; tensors and plain types only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, on whatever device; the tensors are on the CPU."""
        ...


@runtime_checkable
class Beginning(Protocol):
    """A learner whose first updates may be those of a training with other settings."""

    def shared_steps(self, differing: Collection[str]) -> int:
        """How many updates are those of a training in which these settings are others."""
        ...

    def begin_with(self, state: dict[str, Any]) -> None:
        """Take these updates from that training, of which this is the state, past them.

        What follows is what it would be had they been made here, bit for bit.
        """
        ...


class LearnerOnData(Learner, Protocol):
    """A learner that remembers what it was made from."""

    config: Any
    dataset: TransitionSource
    seed: int


def policy_info(learner: LearnerOnData) -> PolicyInfo:
    """What the policy file of a learner tells of its origin."""
    dataset = learner.dataset
    returns = dataset.episodes["return"]
    return PolicyInfo(
        algorithm=learner.name,
        observation_size=dataset.observation_size,
        action_size=dataset.action_size,
        context=dataset.metadata.context,
        cost_limit=getattr(learner.config, "cost_limit", None),
        reward_range=(float(returns.min()), float(returns.max())),
        dataset_sha256=dataset.metadata.content_sha256,
        training={
            "config": dataclasses.asdict(learner.config),
            "steps": learner.steps,
            "step": learner.step,
            "seed": learner.seed,
        },
    )
