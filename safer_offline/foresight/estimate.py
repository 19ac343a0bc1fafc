"""Return and cost of a policy, estimated without a simulator, and whether to believe it.

Members of the model are scenarios: each is one world that the data allow. An interval reaches from
the least to the largest of their means, widened by what the choice of starts leaves open. It says
nothing of errors that all members share. They share most where the data say nothing; there they
also disagree, and an estimate is not trusted where they disagree much more along the policy's
episodes than on transitions of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safer_offline.attacks import Attack, Bias, EpsilonUnits, attack_budget, make_attack
from safer_offline.datasets.dataset.access import TransitionSource
from safer_offline.errors import UsageError
from safer_offline.foresight.episodes import Foreseen, foresee_episodes
from safer_offline.foresight.model import DynamicsConfig, DynamicsEnsemble, fit_dynamics
from safer_offline.foresight.worst_bias import worst_bias
from safer_offline.policies.trained import TrainedPolicy

ATTACK_STEPS = 10
SEARCHED = 4
"""Every which start the worst constant offset is searched at."""

TRUSTED = 3.0
"""Up to so many times the disagreement on data, an estimate is believed."""

NORMAL = 1.96
"""Deviations that 95 % of a mean's error stay within."""


@dataclass(frozen=True)
class Estimate:
    """What is expected of an episode under one attack; intervals are (low, high).

    Attributes:
        attack: Its name.
        reward: Return.
        reward_interval: Of the return.
        cost: Cost.
        cost_interval: Of the cost.
        disagreement: Of the members along the way, in multiples of that on data.
    """

    attack: str
    reward: float
    reward_interval: tuple[float, float]
    cost: float
    cost_interval: tuple[float, float]
    disagreement: float

    @property
    def trusted(self) -> bool:
        """Whether the data say enough about where the policy goes."""
        return self.disagreement <= TRUSTED


@dataclass(frozen=True)
class Foresight:
    """Estimates under several attacks.

    Attributes:
        estimates: One for each attack.
        cost_limit: That the policy was trained to keep.
    """

    estimates: tuple[Estimate, ...]
    cost_limit: float | None

    @property
    def decisive(self) -> tuple[Estimate, ...]:
        """Those to choose by: all but the worst constant offset.

        That is the largest of up to 64 estimates and picked with the errors of the models: for two
        policies that no offset can harm in the simulator, 16 and 18 were foreseen.
        """
        return tuple(one for one in self.estimates if one.attack != Bias.name)

    @property
    def breaks_limit(self) -> bool:
        """Whether the limit is expected to break, going by what is decisive."""
        limit = self.cost_limit
        return limit is not None and any(one.cost > limit for one in self.decisive)

    def lines(self) -> list[str]:
        """In words: a line for each attack, and what to think of them."""
        width = max(len(estimate.attack) for estimate in self.estimates)
        lines = [
            f"  {one.attack:{width}}  return {_told(one.reward, one.reward_interval)}, cost "
            f"{_told(one.cost, one.cost_interval)}{'' if one.trusted else '  (not to be trusted)'}"
            for one in self.estimates
        ]
        return [*lines, *self._doubts(), *self._verdict()]

    def _doubts(self) -> list[str]:
        doubtful = [one for one in self.estimates if not one.trusted]
        if not doubtful:
            return []
        worst = max(doubtful, key=lambda one: one.disagreement)
        return [
            f"Under '{worst.attack}' the policy leads where the data say little: the models "
            f"disagree {worst.disagreement:.0f} times as much there as on the data."
        ]

    def _verdict(self) -> list[str]:
        limit = self.cost_limit
        if limit is None:
            return []
        worst = max(self.estimates, key=lambda one: one.cost_interval[1])
        natural = self.estimates[0]
        if worst.cost_interval[1] <= limit:
            return [f"In all of them the limit of {limit:g} is kept."]
        if natural.cost > limit:
            return [f"Even unattacked the policy is expected to break the limit of {limit:g}."]
        # All models say so, or only some.
        sure = max(self.estimates, key=lambda one: one.cost_interval[0])
        if sure.cost_interval[0] > limit:
            return [f"Under '{sure.attack}' it is expected to break the limit of {limit:g}."]
        return [f"Under '{worst.attack}' it may break the limit of {limit:g}: the models differ."]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "cost_limit": self.cost_limit,
            "estimates": [{**vars(one), "trusted": one.trusted} for one in self.estimates],
        }


def foresee(
    policy: TrainedPolicy,
    dataset: TransitionSource,
    *,
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    model: DynamicsEnsemble | None = None,
    starts: int = 32,
    restarts: int = 1,
    seed: int = 0,
) -> Foresight:
    """Estimate what a policy earns and costs, natural and attacked, from data alone.

    Args:
        policy: Whose episodes.
        dataset: Says what follows an action, where episodes begin and how long they are.
        epsilon: Budget of the attacks.
        epsilon_units: `raw` or `std`.
        model: Of `fit_dynamics`, for several policies of one dataset. None fits one.
        starts: Episodes of each member, from beginnings of the data's.
        restarts: Of the attacks that critics lead. More find more, and take as many times longer.
        seed: Same seed, same machine: same estimate.

    Raises:
        UsageError: If policy and dataset have observations or actions of different sizes.
    """
    sizes = (policy.observation_size, policy.action_size)
    if sizes != (dataset.observation_size, dataset.action_size):
        raise UsageError(
            f"the policy takes observations of size {sizes[0]} and gives actions of size "
            f"{sizes[1]}, but the dataset has {dataset.observation_size} and {dataset.action_size}"
        )
    model = model or fit_dynamics(dataset, DynamicsConfig(), seed=seed)
    episodes = dataset.episodes
    chosen = torch.linspace(0, len(episodes) - 1, min(starts, len(episodes))).round().long()
    rows = torch.from_numpy(episodes["start"].to_numpy(copy=True))[chosen]
    begin = dataset.take(("observations",), rows)["observations"]
    budget = attack_budget(epsilon, policy.observation_std, units=epsilon_units)
    usual = disagreement_on_data(model, dataset, seed=seed)
    length = int(episodes["length"].max())
    bias = worst_bias(model, policy, begin[::SEARCHED], length=length, epsilon=budget, seed=seed)
    estimates = []
    for attack in (*attacks_for(policy, restarts=restarts), bias):
        foreseen = foresee_episodes(
            model, policy, begin, length=length, attack=attack, epsilon=budget, seed=seed
        )
        estimates.append(_estimate(attack.name, foreseen, usual=usual))
    return Foresight(tuple(estimates), cost_limit=policy.cost_limit)


def attacks_for(policy: TrainedPolicy, *, restarts: int = 1) -> list[Attack]:
    """None, noise, and the attacks that the policy's own critics can lead."""
    critics = (
        [] if policy.remembers else [{"cost": "mc", "reward": "mr"}[c] for c in policy.critics]
    )
    led = [make_attack(name, steps=ATTACK_STEPS, restarts=restarts) for name in sorted(critics)]
    return [make_attack("natural"), make_attack("uniform"), *led]


def disagreement_on_data(
    model: DynamicsEnsemble, dataset: TransitionSource, *, seed: int, rows: int = 4_096
) -> float:
    """How far the members are apart on transitions of the data; see `Foreseen`."""
    generator = torch.Generator().manual_seed(seed)
    taken = dataset.take(
        ("observations", "actions"),
        torch.randint(dataset.num_transitions, (rows,), generator=generator),
    )
    change = model(taken["observations"], taken["actions"]).change
    return float(change.var(0, correction=0).mean().sqrt())


def _estimate(name: str, foreseen: Foreseen, *, usual: float) -> Estimate:
    return Estimate(
        attack=name,
        reward=float(foreseen.returns.mean()),
        reward_interval=_interval(foreseen.returns),
        cost=float(foreseen.costs.mean()),
        cost_interval=_interval(foreseen.costs, least=0.0),
        disagreement=foreseen.disagreement / max(usual, 1e-12),
    )


def _interval(values: Tensor, *, least: float = -torch.inf) -> tuple[float, float]:
    """Of (M, B) values: from the least mean of a member to the largest, each with its error."""
    means = values.double().mean(1)
    errors = NORMAL * values.double().std(1, correction=0) / values.shape[1] ** 0.5
    return max(least, float((means - errors).min())), float((means + errors).max())


def _told(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    digits = 0 if max(abs(low), abs(high)) >= 100 else 1
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
