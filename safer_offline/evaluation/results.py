"""What an evaluation found: every episode under every attack, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safer_offline.attacks import EpsilonUnits, Natural
from safer_offline.evaluation import statistics


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
