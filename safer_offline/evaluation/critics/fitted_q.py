"""Fitted Q evaluation: what reward and cost follow an action if the evaluated policy goes on.

Source: Le, Voloshin and Yue, "Batch Policy Learning under Constraints", ICML 2019.

Q(s, a) <- x + discount * Q_target(s', pi(s')), for x the reward and the cost of a step, where the
step did not truly end its episode. Time limits end none: behind them the policy would go on.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from safer_offline.datasets.dataset.access import Transitions
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.evaluation.adversaries.learned import as_before
from safer_offline.evaluation.critics.settings import CriticSettings
from safer_offline.evaluation.rollouts import EvaluatedPolicy, Victim
from safer_offline.policies.critics import discounted_to_go
from safer_offline.policies.layers import EnsembleMLP, Standardizer, gradient_step, polyak_update
from safer_offline.progress import ProgressBar

SIGNALS = ("reward", "cost")
"""What there is a critic of; their order here is that of all tensors of two."""

UPDATE_WORK = 15
"""Steps of a simulator that take as long as an update, roughly."""

MAX_NORM = 10.0
TOLD_EVERY = 100
ACTIONS_AT_ONCE = 4096


class FittedCritics(nn.Module):
    """Discounted reward and cost of actions in raw units, each the mean of several networks.

    Args:
        observation_size: Coordinates ds of an observation.
        action_size: Coordinates da of an action.
        members: Networks of each.
        hidden_sizes: Their hidden layers.

    Attributes:
        told: What is known of them, as JSON types; see `finding`.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        members: int,
        hidden_sizes: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.members = members
        self.hidden_sizes = hidden_sizes
        sizes = (observation_size + action_size, *hidden_sizes, 1)
        self.observations = Standardizer(observation_size)
        self.actions = Standardizer(action_size)
        self.values = Standardizer(len(SIGNALS))
        self.ensembles = nn.ModuleDict({name: EnsembleMLP(members, sizes) for name in SIGNALS})
        self.told: dict[str, Any] = {}

    def inputs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What the networks read of (B, ds) and (B, da), shape (B, ds + da)."""
        return torch.cat([self.observations(observations), self.actions(actions)], dim=-1)

    def q_reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._mean("reward", observations, actions)

    def q_cost(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `AttackTarget`."""
        return self._mean("cost", observations, actions)

    def _mean(self, name: str, observations: Tensor, actions: Tensor) -> Tensor:
        estimates: Tensor = self.ensembles[name](self.inputs(observations, actions))
        place = SIGNALS.index(name)
        return estimates.squeeze(-1).mean(0) * self.values.std[place] + self.values.mean[place]


def fit_critics(
    policy: EvaluatedPolicy,
    transitions: Transitions,
    settings: CriticSettings,
    *,
    bar: ProgressBar,
    what: str,
) -> FittedCritics:
    """Critics of a policy, from what others, or it itself, did.

    The networks begin with what the episodes went on to earn (see `discounted_to_go`), which is the
    value of whoever acted, and go on to the policy's: values that begin at zero take long to rise,
    and costs look small until then. Targets are kept to what such steps can add up to.

    Same seed, same machine, same critics.

    Args:
        policy: Who goes on; it must not remember its episode.
        transitions: Of whole episodes.
        settings: How to fit.
        bar: Advances by `UPDATE_WORK` for each update.
        what: What to call the transitions.
    """
    with as_before():
        torch.manual_seed(settings.seed)
        critics = FittedCritics(
            transitions.observations.shape[1],
            transitions.actions.shape[1],
            members=settings.members,
            hidden_sizes=settings.hidden_sizes,
        )
        columns = _columns(critics, policy, transitions, settings)
        # All networks of both as one: a batch of small products takes hardly longer than one.
        sizes = (columns["inputs"].shape[1], *settings.hidden_sizes, 1)
        both = EnsembleMLP(len(SIGNALS) * settings.members, sizes)
        _fit(both, columns, critics, settings, bar=bar, what=what)
    with torch.no_grad():
        for number, ensemble in enumerate(critics.ensembles.values()):
            mine = slice(number * settings.members, (number + 1) * settings.members)
            for part, whole in zip(ensemble.parameters(), both.parameters(), strict=True):
                part.copy_(whole[mine])
    return critics.requires_grad_(False)


def _columns(
    critics: FittedCritics,
    policy: EvaluatedPolicy,
    transitions: Transitions,
    settings: CriticSettings,
) -> dict[str, Tensor]:
    """What updates need of each transition; values in deviations, which the critics get to know."""
    # A network that read what never varies here would hang on it elsewhere.
    critics.observations.fit(transitions.observations, leave_out_constants=True)
    critics.actions.fit(transitions.actions, leave_out_constants=True)
    signals = torch.stack([transitions.rewards, transitions.costs], dim=1)
    to_go = torch.stack(
        [
            discounted_to_go(
                signal, transitions.terminals, transitions.timeouts, discount=settings.discount
            )
            for signal in signals.unbind(1)
        ],
        dim=1,
    )
    critics.values.fit(to_go)
    following = torch.cat(
        [
            torch.from_numpy(Victim(policy, len(seen), under="fitting of critics").act(seen))
            for seen in torch.split(transitions.next_observations, ACTIONS_AT_ONCE)
        ]
    )
    return {
        "inputs": critics.inputs(transitions.observations, transitions.actions),
        "following": critics.inputs(transitions.next_observations, following.float()),
        "signals": signals,
        "to_go": critics.values(to_go),
        "discounts": settings.discount * (~transitions.terminals).float(),
    }


def _fit(
    networks: EnsembleMLP,
    columns: dict[str, Tensor],
    critics: FittedCritics,
    settings: CriticSettings,
    *,
    bar: ProgressBar,
    what: str,
) -> None:
    """Fit networks, reward's first, then cost's; they end as a mean over their last updates."""
    target = copy.deepcopy(networks)
    optimizer = torch.optim.Adam(networks.parameters(), lr=settings.learning_rate)
    sampler = TransitionSampler(columns, batch_size=settings.batch_size, seed=settings.seed)
    mean, std = critics.values.mean[:, None, None], critics.values.std[:, None, None]
    endless = columns["signals"] / (1 - settings.discount)
    least = critics.values(endless.amin(0).clamp_max(0.0))[:, None, None]
    most = critics.values(endless.amax(0).clamp_min(0.0))[:, None, None]
    shape = (len(SIGNALS), settings.members, settings.batch_size)
    warm_up = round(settings.warm_up * settings.updates)
    for update in range(settings.updates):
        left = 2 * (1 - update / settings.updates)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * min(1.0, left)
        batch = sampler.sample()
        if update < warm_up:
            wanted = batch["to_go"].T[:, None, :].expand(shape)
        else:
            with torch.no_grad():
                ahead = target(batch["following"]).view(shape) * std + mean
                values = batch["signals"].T[:, None, :] + batch["discounts"] * ahead
                wanted = ((values - mean) / std).clamp(least, most)
        estimates = networks(batch["inputs"]).view(shape)
        # Of each network for itself: the sum over networks, the mean over transitions.
        loss = ((estimates - wanted) ** 2).mean(dim=-1).sum()
        gradient_step(optimizer, loss, max_norm=MAX_NORM)
        polyak_update(target, networks, settings.polyak)
        if (update + 1) % TOLD_EVERY == 0:
            bar.advance(TOLD_EVERY * UPDATE_WORK, critics=what)
    networks.load_state_dict(target.state_dict())
