"""Reward and cost critics: ensembles fitted to what the dataset's episodes went on to earn.

Both are evaluated on in-support actions only, and no learned action enters any target, so there is
nothing to extrapolate: a critic's target is the discounted sum that was *observed* after a
transition. An episode that was cut by its time limit is continued at its own mean rate, so that a
value does not depend on how much time was left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from safer_offline.policies.layers import EnsembleMLP, Standardizer


def discounted_to_go(
    signal: Tensor, terminals: Tensor, timeouts: Tensor, *, discount: float
) -> Tensor:
    """Monte-Carlo targets: discounted sum of a signal from each transition to the episode's end.

    G_t = sum_{k=t}^{T-1} discount^(k-t) x_k + discount^(T-t) * mean(x) / (1 - discount), the last
    term only where the episode was cut by its time limit.

    Args:
        signal: Reward or cost of each transition, shape (N,).
        terminals: Where an episode truly ended, shape (N,).
        timeouts: Where it was cut, shape (N,).
        discount: Below 1.

    Returns:
        Shape (N,), float32.
    """
    x = signal.double().numpy()
    ends = (terminals | timeouts).nonzero().flatten().tolist()
    cut = timeouts.numpy()
    backwards = []  # Python's numbers: a loop over an array's takes several times as long
    for end, start in zip(reversed(ends), [*reversed(ends[:-1]), -1], strict=True):
        episode = x[start + 1 : end + 1]
        tail = float(episode.mean()) / (1.0 - discount) if cut[end] else 0.0
        for value in reversed(episode.tolist()):
            tail = value + discount * tail
            backwards.append(tail)
    return torch.from_numpy(np.array(backwards[::-1], np.float32))


class CriticEnsemble(nn.Module):
    """E estimates of one action value Q(s, a), in the units of its targets.

    Args:
        observation_size: Size of an observation.
        action_size: Size of an action.
        members: Number of networks E.
        hidden_sizes: Their hidden layers.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        members: int,
        hidden_sizes: Sequence[int],
    ) -> None:
        super().__init__()
        self.hidden_sizes = tuple(hidden_sizes)
        self.observations = Standardizer(observation_size)
        self.values = Standardizer(1)
        self.ensemble = EnsembleMLP(members, (observation_size + action_size, *hidden_sizes, 1))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """All members' estimates for (B, ds) and (B, da), shape (E, B)."""
        return self.values.inverse(self.standardized(observations, actions))

    def standardized(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The same in standard deviations from the targets' mean, shape (E, B)."""
        inputs = torch.cat([self.observations(observations), actions], dim=-1)
        estimates: Tensor = self.ensemble(inputs)
        return estimates.squeeze(-1)

    def mean(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The members' mean, shape (B,)."""
        estimates: Tensor = self(observations, actions)
        return estimates.mean(0)

    def upper(self, observations: Tensor, actions: Tensor, *, deviations: float) -> Tensor:
        """Mean plus so many standard deviations of the members, shape (B,): a cautious cost."""
        estimates: Tensor = self(observations, actions)
        return estimates.mean(0) + deviations * estimates.std(0, correction=0)


class StateValue(nn.Module):
    """The least of E estimates of something about a state.

    Args:
        observation_size: Size of an observation.
        members: Number of networks E.
        hidden_sizes: Their hidden layers.
    """

    def __init__(self, observation_size: int, *, members: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.observations = Standardizer(observation_size)
        self.ensemble = EnsembleMLP(members, (observation_size, *hidden_sizes, 1))

    def forward(self, *observations: Tensor) -> tuple[Tensor, ...]:
        """For each of several (B, ds), (B,); all in one pass."""
        estimates: Tensor = self.ensemble(self.observations(torch.cat(observations)))
        return estimates.squeeze(-1).amin(0).chunk(len(observations))


def critic_loss(
    critic: CriticEnsemble, observations: Tensor, actions: Tensor, targets: Tensor
) -> Tensor:
    """Squared error against (B,) targets in standard deviations, summed over members."""
    estimates = critic.standardized(observations, actions)
    wanted: Tensor = critic.values(targets)
    return functional.mse_loss(estimates, wanted.expand_as(estimates)) * estimates.shape[0]
