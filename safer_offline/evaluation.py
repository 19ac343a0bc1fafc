"""How safe a policy stays when its observations are attacked.

All attacks meet the same episodes, so that what differs between them is the attack alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from safer_offline import statistics
from safer_offline.attacks import (
    Attack,
    AttackTarget,
    EpsilonUnits,
    Natural,
    NoiseSource,
    attack_budget,
    resolve_attacks,
)
from safer_offline.environments import EnvironmentSource
from safer_offline.errors import DataError, UsageError
from safer_offline.progress import progress_bar
from safer_offline.rollouts import EvaluatedPolicy, Job, Rollouts

FIT_EPISODES = 20
"""Natural episodes from which an attack learns what it must know of its victim."""

# Domains of the episode seeds: fitting sees other episodes than the evaluation, and both others
# than datasets, whose seed sequences have no spawn key.
_EVALUATE, _FIT = 101, 102


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything that an evaluation found.

    Attributes:
        env_id: The task.
        epsilon: Budget as the caller gave it: one number, or one for each coordinate.
        epsilon_units: "raw" observation units, or "std" of the dataset.
        seed: Of episodes and attacks.
        cost_limit: Largest allowed episode cost, or None.
        reward_range: Extreme returns of the dataset, which normalise, or None.
        attacks: Settings of each attack by its name, in the order of evaluation.
        episodes: Table of all episodes under all attacks, see `Rollouts.run`.
    """

    env_id: str
    epsilon: float | tuple[float, ...]
    epsilon_units: EpsilonUnits
    seed: int
    cost_limit: float | None
    reward_range: tuple[float, float] | None
    attacks: dict[str, dict[str, Any]]
    episodes: pd.DataFrame = field(repr=False)

    def summary(self) -> pd.DataFrame:
        """One row for each attack, in the order of evaluation.

        `*_low` and `*_high` enclose the mean with 95 % confidence. What nobody knows (violations
        without a cost limit, scores without a reward range) is NaN.
        """
        rows = []
        for name in self.attacks:
            episodes = self.of_attack(name)
            rows.append(
                {
                    "attack": name,
                    "epsilon": 0.0 if name == Natural.name else self._epsilon_cell(),
                    "epsilon_units": self.epsilon_units,
                    **self._describe(episodes["reward"].to_numpy(), episodes["cost"].to_numpy()),
                    "length_mean": statistics.mean(episodes["length"].to_numpy()),
                    "budget_used": statistics.mean(episodes["budget_used"].to_numpy()),
                    "cost_limit": math.nan if self.cost_limit is None else self.cost_limit,
                    "seed": self.seed,
                    "env": self.env_id,
                }
            )
        return pd.DataFrame(rows)

    def worst_attack(self) -> str:
        """The attack with the largest mean cost; of several, the one with the least return."""
        summary = self.summary().sort_values(["cost_mean", "reward_mean"], ascending=[False, True])
        return str(summary["attack"].iloc[0])

    def worst_case(self) -> dict[str, float]:
        """The statistics of `summary` if every episode meets the attack that harms it most."""
        returns = np.stack([self.of_attack(name)["reward"].to_numpy() for name in self.attacks])
        costs = np.stack([self.of_attack(name)["cost"].to_numpy() for name in self.attacks])
        return self._describe(*statistics.worst_case(returns, costs))

    def of_attack(self, name: str) -> pd.DataFrame:
        """The episodes under one attack, in order."""
        return self.episodes[self.episodes["attack"] == name]

    def _epsilon_cell(self) -> float | str:
        if isinstance(self.epsilon, float):
            return self.epsilon
        return " ".join(map(str, self.epsilon))

    def _describe(self, returns: NDArray[Any], costs: NDArray[Any]) -> dict[str, float]:
        reward_low, reward_high = statistics.bootstrap_interval(returns)
        cost_low, cost_high = statistics.bootstrap_interval(costs)
        violation_rate = normalised_reward = normalised_cost = math.nan
        if self.cost_limit is not None:
            violation_rate = statistics.violation_rate(costs, self.cost_limit)
            normalised_cost = statistics.mean(statistics.normalised_cost(costs, self.cost_limit))
        if self.reward_range is not None:
            normalised_reward = statistics.mean(
                statistics.normalised_return(returns, self.reward_range)
            )
        return {
            "episodes": len(returns),
            "reward_mean": statistics.mean(returns),
            "reward_std": statistics.std(returns),
            "reward_low": reward_low,
            "reward_high": reward_high,
            "cost_mean": statistics.mean(costs),
            "cost_std": statistics.std(costs),
            "cost_low": cost_low,
            "cost_high": cost_high,
            "violation_rate": violation_rate,
            "normalised_reward": normalised_reward,
            "normalised_cost": normalised_cost,
        }


def evaluate(
    policy: EvaluatedPolicy,
    *,
    env: str | EnvironmentSource,
    attacks: str | Sequence[str | Attack] = "all",
    epsilon: float | Sequence[float] = 0.05,
    epsilon_units: EpsilonUnits = "raw",
    episodes: int = 50,
    seed: int = 0,
    workers: int | None = None,
    cost_limit: float | None = None,
    max_rows: int = 32,
    progress: bool = True,
) -> EvaluationReport:
    """Run a policy in the simulator under each attack.

    The same call gives the same numbers, bit for bit, whatever `workers` is, in whatever order the
    attacks come and whichever others there are. Other `episodes` or `max_rows` change the size of
    the batches that the networks see, and with it possibly the last bit of an action; starts and
    random numbers of an episode stay the same.

    Args:
        policy: A policy with its critics.
        env: Name of the task (see `EnvironmentSource`), or a source that says more than its name.
        attacks: "all", names (a sequence, or separated by commas), or attacks of your own.
        epsilon: Budget of the attacks: one number for all coordinates, or one for each.
        epsilon_units: What epsilon counts: raw observation units, or standard deviations of the
            dataset.
        episodes: Episodes under each attack.
        seed: Determines the episodes and the attacks' random numbers.
        workers: Simulation processes; None takes one for each core, 0 simulates in this process.
        cost_limit: Largest allowed episode cost; None takes the policy's own.
        max_rows: Most simulators alive at once.
        progress: Show a progress bar if standard error is a terminal.

    Raises:
        UsageError: If an argument is impossible, a name unknown, or an environment not usable.
        DataError: If the policy does not fit the environment.
        MissingSimulatorError: If there is no simulator on this machine.
    """
    if episodes < 1 or max_rows < 1:
        raise UsageError(f"episodes and max_rows must be at least 1, not {episodes} and {max_rows}")
    if seed < 0:
        raise UsageError(f"seed must not be negative, but is {seed}")
    cost_limit = policy.cost_limit if cost_limit is None else float(cost_limit)
    if cost_limit is not None and not 0 <= cost_limit < math.inf:
        raise UsageError(f"cost_limit must be finite and not negative, but is {cost_limit}")
    source = EnvironmentSource(name=env) if isinstance(env, str) else env
    chosen = resolve_attacks(attacks)
    budget = attack_budget(epsilon, policy.observation_std, units=epsilon_units)
    horizon = _check_task(policy, source)

    fitting = any(attack.needs_fit for attack in chosen)
    total = horizon * (len(chosen) * episodes + fitting * FIT_EPISODES)
    with (
        progress_bar("evaluate", total=total, enabled=progress) as bar,
        Rollouts(
            policy, source=source, budget=budget, seed=seed, workers=workers, bar=bar
        ) as rollouts,
    ):
        if fitting:
            recorder = _Recorder()
            seeds = _episode_seeds(seed, FIT_EPISODES, domain=_FIT)
            rollouts.run([Job(recorder, range(FIT_EPISODES), seeds)])
            seen = torch.cat(recorder.seen)
            chosen = tuple(a.fit(policy, seen) if a.needs_fit else a for a in chosen)
        seeds = _episode_seeds(seed, episodes, domain=_EVALUATE)
        tables = [rollouts.run(wave) for wave in _waves(chosen, seeds, max_rows)]

    order = pd.CategoricalDtype([attack.name for attack in chosen], ordered=True)
    table = pd.concat(tables, ignore_index=True).astype({"attack": order})
    table = table.sort_values(["attack", "episode"], ignore_index=True).astype({"attack": str})
    given = np.asarray(epsilon, np.float64)
    return EvaluationReport(
        env_id=source.env_id,
        epsilon=given.item() if given.ndim == 0 else tuple(given.tolist()),
        epsilon_units=epsilon_units,
        seed=seed,
        cost_limit=cost_limit,
        reward_range=policy.reward_range,
        attacks={attack.name: dict(vars(attack)) for attack in chosen},
        episodes=table,
    )


class _Recorder(Natural):
    """No attack, but it remembers what the policy saw."""

    name: ClassVar[str] = "fit"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def perturb(
        self,
        target: AttackTarget,
        observations: Tensor,
        *,
        epsilon: Tensor,
        noise: NoiseSource,
        previous: Tensor | None = None,
    ) -> Tensor:
        """See `Attack`."""
        self.seen.append(observations)
        return observations


def _check_task(policy: EvaluatedPolicy, source: EnvironmentSource) -> int:
    """Steps of an episode, after a check that the policy belongs to such an environment."""
    env_id = source.env_id
    if policy.env_id is not None and policy.env_id != env_id:
        warnings.warn(
            f"the policy was trained for {policy.env_id} and is evaluated in {env_id}",
            stacklevel=2,
        )
    environment = source.make()
    try:
        sizes = {
            "observation": (policy.observation_size, environment.observation_space.shape),
            "action": (policy.action_size, environment.action_space.shape),
        }
    finally:
        environment.close()
    for what, (size, shape) in sizes.items():
        if (size,) != shape:
            raise DataError(
                f"the policy has {what}s of size {size}, but {env_id} has {what}s of size "
                f"{math.prod(shape or ())}",
                remedy="Evaluate it in the environment that its dataset comes from.",
            )
    return environment.max_episode_steps


def _episode_seeds(seed: int, count: int, *, domain: int) -> list[int]:
    """Environment seeds of episodes 0, 1, ...; those of fewer episodes are a prefix of these."""
    sequence = np.random.SeedSequence([seed], spawn_key=(domain,))
    return [int(word) for word in sequence.generate_state(count)]


def _waves(attacks: Sequence[Attack], seeds: list[int], max_rows: int) -> Iterator[list[Job]]:
    """Split attacks x episodes into waves of at most `max_rows` rows, of sizes as equal as can be.

    How the episodes of an attack are grouped depends on their number only, not on other attacks.
    """
    count = len(seeds)
    for part in np.array_split(np.arange(count), math.ceil(count / max_rows)):
        episodes = range(int(part[0]), int(part[-1]) + 1)
        jobs = [Job(attack, episodes, [seeds[i] for i in episodes]) for attack in attacks]
        together = max_rows // len(episodes)
        for group in np.array_split(np.arange(len(jobs)), math.ceil(len(jobs) / together)):
            yield [jobs[i] for i in group]
