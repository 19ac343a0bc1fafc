"""What the training loop needs of an algorithm."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from safer_offline.policies.trained import TrainedPolicy


class Learner(Protocol):
    """An algorithm that learns from a fixed dataset, one update after the other."""

    name: ClassVar[str]
    """What checkpoints and policy files call it."""

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
        """The policy as it stands."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; tensors and plain types only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        ...
