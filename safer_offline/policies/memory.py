"""Policies that remember their episode: what such a network offers, and episodes as users run them.

    episode = policy.begin()
    while not done:
        action = episode.predict(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        episode.earn(reward, info["cost"])

A memory is a dict of tensors with a row for each episode, so that many run as one batch.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from safer_offline.errors import UsageError
from safer_offline.policies.actors import Actor

if TYPE_CHECKING:
    from safer_offline.policies.trained import TrainedPolicy

Memory = dict[str, Tensor]
"""What B episodes held so far: tensors whose first dimension is B."""

Recalled = Any
"""What a network makes of a memory once a step, before it sees the present observations."""


class RememberingActor(Actor):
    """An actor whose action depends on what its episode held so far, too.

    Everything that is remembered passes through `remember` and `earn`: the observations that it was
    shown, be they true or attacked, its actions, and what these earned.
    """

    @abstractmethod
    def begin(self, rows: int) -> Memory:
        """The memory of so many episodes that begin, aimed at what the actor aims at."""

    @abstractmethod
    def recall(self, memory: Memory) -> Recalled:
        """What `respond` needs of the memory, computed once for all observations to be tried."""

    @abstractmethod
    def respond(self, recalled: Recalled, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, within the action bounds, and deviation, as `forward` gives them.

        Args:
            recalled: Of B episodes.
            observations: Present ones of these, raw, (B, ds); or several for each, (R * B, ds), one
                copy of the batch after the other. Differentiable.
        """

    @abstractmethod
    def remember(self, memory: Memory, observations: Tensor, actions: Tensor) -> Memory:
        """The memory after a step: what was seen, (B, ds), and done, (B, da)."""

    @abstractmethod
    def earn(self, memory: Memory, rewards: Tensor, costs: Tensor) -> Memory:
        """The memory after it was told what the last step earned and cost, each (B,)."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """See `Actor`: as at the beginning of an episode."""
        return self.respond(self.recall(self.begin(len(observations))), observations)


class Episodes:
    """Episodes of a policy that remembers nothing: what it is told of them changes nothing.

    Made by `TrainedPolicy.begin`.

    Args:
        policy: Who acts.
    """

    def __init__(self, policy: TrainedPolicy) -> None:
        self._policy = policy

    def predict(self, observations: NDArray[Any], *, deterministic: bool = True) -> NDArray[Any]:
        """Actions for the present observations; see `TrainedPolicy.predict`."""
        return self._policy.predict(observations, deterministic=deterministic)

    def earn(self, rewards: ArrayLike, costs: ArrayLike) -> None:
        """Tell what the last step earned and cost: a number, or one for each row, (B,)."""

    def restart(self, rows: NDArray[Any] | Tensor | slice = slice(None)) -> None:
        """Begin these rows anew, by index or mask: their episodes have ended."""


@dataclass
class Held:
    """A memory that several views share.

    Attributes:
        memory: What the episodes held so far.
        changes: How often it changed: what was made of it before is stale.
    """

    memory: Memory
    changes: int = 0


class RememberedEpisodes(Episodes):
    """B episodes of a policy that remembers them; what attacks it attacks this (`AttackTarget`).

    The memory changes in place, in `predict`, `earn` and `restart` alone, never by being asked for
    a distribution.

    Args:
        policy: Who acts.
        actor: Its network.
        held: What the episodes held so far, those of others included.
        index: Which rows of that these are, (B,) int64.
    """

    def __init__(
        self, policy: TrainedPolicy, actor: RememberingActor, *, held: Held, index: Tensor
    ) -> None:
        super().__init__(policy)
        self._actor = actor
        self._held = held
        self._index = index
        self._recalled: Recalled = None
        self._recalled_at = -1

    @classmethod
    def begun(cls, policy: TrainedPolicy, actor: RememberingActor, rows: int) -> RememberedEpisodes:
        """So many episodes that begin."""
        return cls(policy, actor, held=Held(actor.begin(rows)), index=torch.arange(rows))

    def rows(self, rows: NDArray[Any] | Tensor | slice) -> RememberedEpisodes:
        """Some of the episodes, by index or mask; what happens to them happens to these."""
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(rows)
        return RememberedEpisodes(
            self._policy, self._actor, held=self._held, index=self._index[chosen]
        )

    def action_distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the actions at the present observations, given the memory.

        Args:
            observations: Raw, (B, ds), or (R * B, ds), one copy of the batch after the other.
        """
        if len(observations) % len(self._index):
            raise UsageError(
                f"{len(observations)} observations are no multiple of {len(self._index)} episodes; "
                "take `rows_of` the victim for some of its rows"
            )
        return self._actor.respond(self._recall(), observations)

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `TrainedPolicy`."""
        return self._policy.q_reward(observations, actions)

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `TrainedPolicy`."""
        return self._policy.q_cost(observations, actions)

    def predict(self, observations: NDArray[Any], *, deterministic: bool = True) -> NDArray[Any]:
        """Actions for the present observations, which are remembered with them.

        Args:
            observations: Shape (B, ds), or (ds,) of a single episode.
            deterministic: The mean action; False samples, with PyTorch's global generator.

        Returns:
            Actions of shape (B, da) or (da,), float32, within the action bounds.

        Raises:
            UsageError: If the observations have the wrong shape, or one is not finite.
        """
        given = self._policy.checked(observations)
        seen = given.reshape(-1, given.shape[-1])
        if len(seen) != len(self._index):
            raise UsageError(
                f"{len(seen)} observations were given for {len(self._index)} episodes; "
                f"begin(rows={len(seen)}) begins as many"
            )
        with torch.no_grad():
            mean, std = self._actor.respond(self._recall(), seen)
            actions = mean if deterministic else self._actor.box.clip(torch.normal(mean, std))
            self._write(self._actor.remember(self._read(), seen, actions))
        return actions.reshape(*given.shape[:-1], -1).numpy()

    def earn(self, rewards: ArrayLike, costs: ArrayLike) -> None:
        """See `Episodes`.

        Raises:
            UsageError: If they are not a number for each row.
        """
        told = [self._numbers(rewards, "rewards"), self._numbers(costs, "costs")]
        self._write(self._actor.earn(self._read(), *told))

    def restart(self, rows: NDArray[Any] | Tensor | slice = slice(None)) -> None:
        """See `Episodes`."""
        chosen = self.rows(rows)
        chosen._write(self._actor.begin(len(chosen._index)))

    def _recall(self) -> Recalled:
        if self._recalled_at != self._held.changes:
            with torch.no_grad():
                self._recalled = self._actor.recall(self._read())
            self._recalled_at = self._held.changes
        return self._recalled

    def _read(self) -> Memory:
        return {name: values[self._index] for name, values in self._held.memory.items()}

    def _write(self, memory: Memory) -> None:
        for name, values in memory.items():
            self._held.memory[name][self._index] = values
        self._held.changes += 1

    def _numbers(self, values: ArrayLike, name: str) -> Tensor:
        try:
            numbers = torch.as_tensor(np.asarray(values, np.float32)).reshape(-1)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name} must be numbers: {error}") from None
        if len(numbers) != len(self._index) or not torch.isfinite(numbers).all():
            raise UsageError(f"{name} must be a finite number for each of {len(self._index)} rows")
        return numbers
