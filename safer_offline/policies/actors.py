"""What the network of a policy must offer, and the names of the kinds there are.

The policy file tells of which kind its network is, so that `load_policy` can build it again. Other
packages offer kinds in the entry-point group `safer_offline.actors`; `ACTORS.register` names one
for this process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safer_offline.errors import UsageError
from safer_offline.policies.layers import Standardizer
from safer_offline.registry import Registry


class ActionBox(nn.Module):
    """The action bounds, stored with the weights.

    Args:
        low: Lower bounds, shape (da,).
        high: Upper bounds, shape (da,).
    """

    centre: Tensor
    half_range: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", (low + high).float() / 2)
        self.register_buffer("half_range", (high - low).float() / 2)

    def clip(self, actions: Tensor) -> Tensor:
        """The nearest actions within the bounds."""
        return torch.clamp(actions, self.centre - self.half_range, self.centre + self.half_range)

    def scale(self, units: Tensor) -> Tensor:
        """Actions of numbers between -1 and 1."""
        return self.centre + self.half_range * units

    def units(self, actions: Tensor) -> Tensor:
        """Inverse of `scale`."""
        return (actions - self.centre) / self.half_range


class Actor(nn.Module, ABC):
    """A network from observations to a Gaussian over actions: all that acting needs.

    A subclass is built as `Kind(observation_size, box, hidden_sizes=..., **settings)`, and its
    `forward` must be differentiable in the observations, for the attacks.

    Args:
        observation_size: Size of an observation.
        box: Action bounds.
        hidden_sizes: Hidden layers, or nothing for a kind without such.
    """

    targets: ClassVar[tuple[str, ...]] = ()
    """Buffers of one number that tell it what to aim at, such as `target_cost`."""

    def __init__(
        self, observation_size: int, box: ActionBox, *, hidden_sizes: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.hidden_sizes = tuple(hidden_sizes)
        self.observations = Standardizer(observation_size)
        self.box = box

    @abstractmethod
    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, within the action bounds, and standard deviation for raw (B, ds) observations.

        Each of shape (B, da); the deviation is positive, also where actions are deterministic.
        """

    def sample(self, observations: Tensor) -> Tensor:
        """Random actions for raw (B, ds) observations, (B, da), with PyTorch's global generator."""
        return self.box.clip(torch.normal(*self(observations)))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Further arguments of the constructor, for the policy file: values that JSON knows."""
        return {}


def _check(thing: object, name: str) -> type[Actor]:
    if isinstance(thing, type) and issubclass(thing, Actor):
        return thing
    raise UsageError(f"{name} is no actor: derive a class from safer_offline.policies.actors.Actor")


ACTORS: Registry[type[Actor]] = Registry(
    "actor",
    group="safer_offline.actors",
    builtin={
        "gaussian": "safer_offline.policies.gaussian:GaussianPolicy",
        "squashed-gaussian": "safer_offline.policies.squashed:SquashedGaussianPolicy",
        "candidates": "safer_offline.policies.candidates:CandidatePolicy",
        "diffusion": "safer_offline.policies.diffusion:DiffusionPolicy",
        "switching": "safer_offline.policies.switching:SwitchingPolicy",
        "cost-conditioned": "safer_offline.policies.conditioned:CostConditionedPolicy",
        "foretold": "safer_offline.policies.foretold:ForetoldPolicy",
        "limit-and-budget": "safer_offline.policies.limit_and_budget:LimitAndBudgetPolicy",
        "sequence": "safer_offline.policies.transformer:SequencePolicy",
    },
    check=_check,
)
